"""`python -m data_prep.synthetic [--config demo]`: render and prepare the synthetic benchmark."""

from data_prep.command import main

if __name__ == "__main__":
    main("synthetic", configs=("demo", "tiny", "full"))
