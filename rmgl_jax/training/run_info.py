"""How a run was made, for whoever reads its result later."""

import json
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax

from data_prep.files import write_text

RUN_INFO_NAME = "run.json"


def run_info() -> dict[str, str | None]:
    """Command line, commit of this code, devices and versions of the running process."""
    devices = jax.devices()
    return {
        "command": _command(),
        "commit": _commit(),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "versions": ", ".join(
            [f"python {sys.version.split()[0]}"]
            + [f"{name} {version(name)}" for name in ("jax", "flax", "optax")]
        ),
    }


def save_run_info(workdir: Path) -> None:
    """Writes `provenance` into the work directory of a run that this process has finished.

    What a process before this one wrote stays.
    """
    path = workdir / RUN_INFO_NAME
    if not path.exists():
        write_text(path, json.dumps(run_info(), indent=1) + "\n")


def read_run_info(workdir: Path) -> dict[str, str | None]:
    """What a run recorded of its making; nothing if it recorded nothing.

    Raises:
        ValueError: if the record is damaged.
    """
    path = workdir / RUN_INFO_NAME
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}.") from error


def _command() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    program = (
        ["python", "-m", spec.name.removesuffix(".__main__")] if spec else ["python", sys.argv[0]]
    )
    return shlex.join([*program, *sys.argv[1:]])


def _commit() -> str | None:
    """The checkout's commit, "-dirty" after it if files differ; None outside of a checkout."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():  # Installed; a checkout around that is another project's.
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--exclude=*", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
