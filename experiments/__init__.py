"""One file per published result; its docstring is the run card."""
