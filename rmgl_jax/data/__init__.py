"""From a decoded split to augmented device batches."""
