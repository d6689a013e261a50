"""`python -m rmgl_jax.report`, the same as `rmgl report`."""

import sys

from rmgl_jax import interrupts

if __name__ == "__main__":
    with interrupts.watch(seconds=0):
        # Imported here, because Ctrl-C may come while it is imported.
        from rmgl_jax.report.command import main

        main(sys.argv[1:], prog="python -m rmgl_jax.report")
