"""`python -m data_prep.market1501 --source DIR`: prepare Market-1501."""

from data_prep.command import main

if __name__ == "__main__":
    main("market1501")
