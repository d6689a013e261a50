"""`python -m data_prep.cuhk03_np --source DIR [--config detected]`: prepare CUHK03-NP."""

from data_prep.command import main

if __name__ == "__main__":
    main("cuhk03_np", configs=("labeled", "detected"))
