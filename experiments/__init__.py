"""Run cards: one file per published result, described by its docstring."""
