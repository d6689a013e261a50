"""`python -m data_prep.dukemtmc_reid --source DIR` prepares a copy of DukeMTMC-reID."""

from data_prep.command import prepare_main

prepare_main("dukemtmc_reid")
