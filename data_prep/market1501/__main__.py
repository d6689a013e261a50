"""`python -m data_prep.market1501 --source DIR` prepares Market-1501."""

from data_prep.command import main

main("market1501")
