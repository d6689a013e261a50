"""Records command, commit, devices and versions of a run."""

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax

from data_prep.errors import InputError
from rmgl_jax import checked_json

RUN_INFO_NAME = "run.json"
_FIELDS = ("command", "commit", "device", "versions")


def run_info() -> dict[str, str | None]:
    """Returns command line, commit of this code, devices and versions of this process."""
    devices = jax.devices()
    return {
        "command": _command(),
        "commit": commit_of(Path(__file__).parents[2]),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "versions": ", ".join(
            [f"python {sys.version.split()[0]}"]
            + [f"{name} {version(name)}" for name in ("jax", "flax", "optax")]
        ),
    }


def save_run_info(workdir: Path) -> None:
    """Writes `run.json` into the directory of a run that this process trains.

    A file that an earlier process wrote is kept.
    """
    path = workdir / RUN_INFO_NAME
    if not path.exists():
        checked_json.write(path, run_info())


def read_run_info(workdir: Path) -> dict[str, str | None]:
    """Reads `run.json`; an empty dictionary if there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = workdir / RUN_INFO_NAME
    if not path.exists():
        return {}
    info = checked_json.read(path)
    if not all(name in _FIELDS and isinstance(value, str | None) for name, value in info.items()):
        raise InputError(
            f"{path} is damaged: expected texts named {', '.join(_FIELDS)}, got {info!r}."
        )
    return info


def _command() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    program = (
        ["python", "-m", spec.name.removesuffix(".__main__")] if spec else ["python", sys.argv[0]]
    )
    return shlex.join([*program, *sys.argv[1:]])


def commit_of(directory: Path) -> str | None:
    """Returns the commit of a checkout, with "-dirty" if files differ; None if it is not one."""
    # An installed copy is not one, even if a checkout of another project is around it.
    if not (directory / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--dirty", "--abbrev=12"],
            cwd=directory,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
