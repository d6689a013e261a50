"""A process of a run that does nothing: `NUMBER PORT SECONDS_TO_START MODE`.

It prints "connected", and then meets the other process again and again ("meet"), waits ("wait"), or
meets it until process 1 alone ("fail alone") or both ("fail together") raise an error.
"""

import sys
import time

from rich.console import Console

from data_prep.errors import InputError
from rmgl_jax.runtime import DistributedOptions, report_errors, start_jax


def main(number: int, port: str, seconds: int, mode: str) -> None:
    start_jax(DistributedOptions(True, f"localhost:{port}", 2, number, seconds, 10))
    # Imported late, as the run cards do.
    from rmgl_jax.training.processes import main_process_first

    if mode != "wait":
        main_process_first(lambda: None, "meet")
    print("connected", flush=True)
    while mode == "wait":
        time.sleep(1)
    for meeting in range(10_000):
        main_process_first(lambda: None, "meet")
        if meeting == 3 and (mode == "fail together" or (mode == "fail alone" and number == 1)):
            raise InputError(f"a problem of process {number}")
        time.sleep(0.2)


if __name__ == "__main__":
    with report_errors(Console(width=500)):
        main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4])
