"""`python -m data_prep.folder --source DIR --name NAME` prepares your own images."""

from data_prep.command import prepare_main

prepare_main("folder")
