"""`python -m rmgl_jax.report`, the same as `rmgl report`."""

import sys

from rmgl_jax.report.command import main

if __name__ == "__main__":
    main(sys.argv[1:], prog="python -m rmgl_jax.report")
