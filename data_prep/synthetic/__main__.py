"""`python -m data_prep.synthetic [--config demo]` renders and prepares the synthetic benchmark."""

from data_prep.command import prepare_main

prepare_main("synthetic")
