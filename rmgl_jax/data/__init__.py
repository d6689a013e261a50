"""Data of training and evaluation: decoded splits, P x K batches and augmentation."""
