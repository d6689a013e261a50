"""A trained network on the query and gallery of any prepared data set, its own or another.

    python -m experiments.evaluate --checkpoint runs/market1501_gpu --dataset market1501 --rerank

--checkpoint is the work directory of a run; it is only read, and the run may still be going on.
Images are embedded at the size the network was trained at. A set that is not prepared yet needs
--source once.
"""

from rmgl_jax.experiment.cross_dataset import evaluate_main

if __name__ == "__main__":
    evaluate_main(__doc__)
