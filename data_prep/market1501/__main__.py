"""`python -m data_prep.market1501 --source DIR` prepares Market-1501."""

from data_prep.command import prepare_main

prepare_main("market1501")
