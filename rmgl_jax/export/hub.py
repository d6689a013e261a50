"""Finds the model file that a path names: the file itself, a model folder, or one on the hub."""

import importlib
import os
import re
from pathlib import Path

from data_prep.errors import MissingFileError, MissingPackageError
from data_prep.files import check_local, expand
from rmgl_jax.training.run_directory import CONFIG_NAME

MODEL_NAME = "model.safetensors"
"""Name of the model file in a model folder, and in a repository of the Hugging Face hub."""

# A `Path` has one slash where an address has two.
_REPOSITORY = re.compile(
    r"(?P<address>https://?huggingface\.co/)?"
    r"(?P<name>[\w-][\w.-]*/[\w-][\w.-]*)/?(@(?P<revision>[\w./-]+))?"
)


def is_run(directory: Path) -> bool:
    """Tells whether a directory is that of a run; others may have a `config.json`, too."""
    return (directory / CONFIG_NAME).exists() and (directory / "checkpoints").exists()


def resolve(path: str | os.PathLike[str]) -> Path:
    """Returns the run directory or model file that `path` names.

    A directory with a model file and no run is a model folder. A path that does not exist and has
    the form `ORGANIZATION/NAME` or `ORGANIZATION/NAME@REVISION` is a repository of the Hugging Face
    hub, unless there is a directory `ORGANIZATION`; so is `https://huggingface.co/ORGANIZATION/NAME`.
    Of a repository only the model file is read.

    Raises:
        InputError: the path is another address, such as that of a bucket.
        MissingPackageError: the path would be on the hub, and huggingface_hub is not installed.
        MissingFileError: the hub or its local cache does not have the model, or cannot be reached.
    """
    repository = _REPOSITORY.fullmatch(os.fspath(path))
    if repository and repository["address"]:
        return _download(repository["name"], repository["revision"])
    check_local("A model", path)
    path = expand(path)
    if path.is_dir():
        file = path / MODEL_NAME
        return file if file.is_file() and not is_run(path) else path
    if path.exists() or path.parent.is_dir() or repository is None or path.suffix == ".safetensors":
        return path
    return _download(repository["name"], repository["revision"])


def _download(repository: str, revision: str | None) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise MissingPackageError(
            f"There is no run directory or model file {repository}. To load it from the Hugging "
            "Face hub, install huggingface_hub: pip install 'rmgl_jax[hub]'."
        ) from error
    try:
        return Path(hub.hf_hub_download(repository, MODEL_NAME, revision=revision))
    # Errors of the network, of the cache and of the hub are of these two types.
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MissingFileError(
            f"There is no run directory or model file {repository}, and {MODEL_NAME} of "
            f"{repository} on the Hugging Face hub cannot be loaded: {reason}"
        ) from error
