"""`python -m data_prep.msmt17 --source DIR [--config trainval]`: prepare MSMT17."""

from data_prep.command import main

if __name__ == "__main__":
    main("msmt17", configs=("train", "trainval"))
