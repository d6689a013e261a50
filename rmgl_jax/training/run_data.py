"""A run directory belongs to the data that its run began with, recorded in `data.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from data_prep.errors import InputError, WriteError
from rmgl_jax import checked_json
from rmgl_jax.data.split import Split
from rmgl_jax.training.processes import main_process_first
from rmgl_jax.training.run_directory import differences, has_begun

DATA_NAME = "data.json"


class DataChangedError(InputError):
    """The run directory holds a run on other data."""


def describe_data(splits: Sequence[Split]) -> dict[str, str]:
    """Returns dataset, version and the digest of each split, which `data.json` records."""
    digests = {split.split: split.digest[:16] for split in splits}
    return {"dataset": splits[0].dataset, "version": splits[0].version, **digests}


def init_run_data(workdir: Path, splits: Sequence[Split]) -> None:
    """Records the data of a run, or checks that the run continues on the same data.

    A run that an earlier version started has no record; it gets one. The record of a run that
    ended before its first step is replaced.

    Args:
        workdir: the run directory; shared by all processes, which call this together.
        splits: everything that the run is trained and evaluated on.

    Raises:
        DataChangedError: the run began with other data; names both digests of every split.
        InputError: `data.json` is damaged.
        WriteError: it cannot be written.
        PeerError: another process raised one of these.
    """
    path = workdir / DATA_NAME

    def write_or_compare() -> None:
        if path.exists():
            try:
                return check_run_data(workdir, splits)
            except DataChangedError:
                if jax.process_index() > 0 or has_begun(workdir):
                    raise
        try:
            checked_json.write(path, describe_data(splits))
        except OSError as error:
            raise WriteError(f"{path} cannot be written: {error.strerror or error}.") from error

    main_process_first(write_or_compare, f"use the data of the run in {workdir}")


def check_run_data(workdir: Path, splits: Sequence[Split]) -> None:
    """Checks that a run, if its data is recorded, is one on these splits.

    Args:
        workdir: the run directory.
        splits: everything that the run is trained and evaluated on.

    Raises:
        DataChangedError: the run began with other data; names both digests of every split.
        InputError: `data.json` is damaged.
    """
    recorded = read_run_data(workdir)
    changed = list(differences(recorded, describe_data(splits))) if recorded else []
    if changed:
        raise DataChangedError(
            f"{workdir} holds a run on other data: {'; '.join(changed)}. Use another run "
            "directory, or the data that the run began with."
        )


def read_run_data(workdir: Path) -> dict[str, Any]:
    """Reads `data.json`; an empty dictionary if there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = workdir / DATA_NAME
    return checked_json.read(path) if path.exists() else {}
