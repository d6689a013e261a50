"""`python -m rmgl_jax`, the same as the command `rmgl`."""

from rmgl_jax.cli import run

if __name__ == "__main__":
    run()
