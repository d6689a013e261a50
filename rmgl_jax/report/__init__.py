"""A run as one page for people: `python -m rmgl_jax.report --workdir DIR`."""
