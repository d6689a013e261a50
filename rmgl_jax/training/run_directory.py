"""The work directory belongs to one configuration, which is written into it."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from rmgl_jax.config import ExperimentConfig

CONFIG_NAME = "config.json"


class ConfigChangedError(ValueError):
    """The work directory holds a run of another configuration."""


def init_run_directory(config: ExperimentConfig, workdir: Path, write: bool = True) -> None:
    """Makes the work directory `config`'s, or refuses if it is another's.

    Args:
        config: written to `config.json` if there is none.
        workdir: made if absent.
        write: False on all processes but one.

    Raises:
        ConfigChangedError: naming every field that differs.
        ValueError: if what `config.json` holds is no configuration.
        OSError: if the directory can't be made or written.
    """
    mine = json.loads(json.dumps(asdict(config)))
    path = workdir / CONFIG_NAME
    if path.exists():
        differing = sorted(differences(_read(path), mine))
        if differing:
            raise ConfigChangedError(
                f"{workdir} holds a run of another configuration: {'; '.join(differing)}. "
                "Use another work directory, or the old values."
            )
        return
    if not write:
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(mine, indent=2) + "\n")
        os.replace(temporary, path)
    except OSError as error:
        raise type(error)(f"The work directory {workdir} can't be written: {error}") from error


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Every leaf of two JSON trees that differs, as "a.b was 1, is now 2"."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {old}, is now {new}"


def read_config(workdir: Path) -> ExperimentConfig:
    """The configuration that a work directory belongs to.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it has fields that this version does not know, or lacks some.
    """
    path = workdir / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{workdir} is no work directory of a run: it has no {CONFIG_NAME}."
        )
    try:
        return config_from_json(_read(path))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a configuration of this version: {error!r}.") from error


def config_from_json(tree: dict[str, Any]) -> ExperimentConfig:
    """Builds a configuration from the JSON tree of `dataclasses.asdict`.

    Raises:
        AttributeError, KeyError, TypeError: fields are unknown or have the wrong type.
        ValueError: values are invalid.
    """
    return _build(ExperimentConfig, tree)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    if not isinstance(tree, dict):
        raise ValueError(f"{path} is damaged: it holds {tree!r}.")
    return tree


def _build(kind: type, values: dict[str, Any]) -> Any:
    """A dataclass from its JSON tree: nested dataclasses, and tuples where JSON has lists."""
    hints = get_type_hints(kind)
    arguments = {}
    for name, value in values.items():
        if is_dataclass(hints[name]):
            value = _build(hints[name], value)
        elif isinstance(value, list):
            value = tuple(value)
        arguments[name] = value
    return kind(**arguments)
