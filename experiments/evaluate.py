"""Evaluate a trained model on the query and gallery of any dataset.

    python -m experiments.evaluate --checkpoint runs/market1501_gpu --dataset market1501 --rerank

--checkpoint is a run directory, of a run that may still be going on, or a model file. It is only
read. Images are resized to the size that the model was trained at. A dataset that is not prepared
yet needs --source once.
"""

from rmgl_jax.experiment.command_line import evaluate_main

if __name__ == "__main__":
    evaluate_main(__doc__)
