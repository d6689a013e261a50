"""`python -m data_prep.folder --source DIR --name NAME`: prepare own images."""

from data_prep.command import main

if __name__ == "__main__":
    main("folder")
