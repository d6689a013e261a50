"""Re-ID data sets: from files on disk to TFDS (ArrayRecord, no TensorFlow). Never imports jax."""
