"""`python -m data_prep.cuhk03_np --source DIR [--config detected]` prepares CUHK03-NP."""

from data_prep.command import main

main("cuhk03_np")
