"""Run cards: one file per published result, described by its docstring."""

import sys

from rmgl_jax.interrupts import end_at_once

if sys.argv[0] == "-m":  # `python -m` imports this package before the run card.
    end_at_once()
