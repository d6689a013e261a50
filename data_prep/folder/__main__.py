"""`python -m data_prep.folder --source DIR --name NAME` prepares your own images."""

from data_prep.command import main

main("folder")
