"""Evaluate a trained model on the query and gallery of any dataset.

    python -m experiments.evaluate --checkpoint runs/market1501_gpu --dataset market1501 --rerank

--checkpoint is the work directory of a run. It is only read, so the run may still be going on.
Images are resized to the size that the model was trained at. A dataset that is not prepared yet
needs --source once.
"""

from rmgl_jax.experiment.command_line import evaluate_main

if __name__ == "__main__":
    evaluate_main(__doc__)
