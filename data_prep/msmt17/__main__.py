"""`python -m data_prep.msmt17 --source DIR [--config trainval]` prepares MSMT17."""

from data_prep.command import prepare_main

prepare_main("msmt17")
