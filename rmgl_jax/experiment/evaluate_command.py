"""Evaluate a trained model on the query and gallery of a dataset.

    rmgl evaluate MODEL --dataset market1501 --rerank

MODEL is a run directory or a model file; it is only read. Images are resized to the size that the
model was trained at. A dataset that is not prepared yet needs --source once.
"""

from collections.abc import Sequence

from rmgl_jax.experiment.command_line import evaluate_main


def main(arguments: Sequence[str], prog: str = "rmgl evaluate") -> None:
    """Runs the command line of `rmgl evaluate`."""
    evaluate_main(__doc__ or "", arguments, prog)
