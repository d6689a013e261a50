"""`python -m data_prep.cuhk03_np --source DIR [--config detected]` prepares CUHK03-NP."""

from data_prep.command import prepare_main

prepare_main("cuhk03_np")
