"""`python -m data_prep.dukemtmc_reid --source DIR`: prepare a local copy of DukeMTMC-reID."""

from data_prep.command import main

if __name__ == "__main__":
    main("dukemtmc_reid")
