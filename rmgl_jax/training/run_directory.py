"""A run directory belongs to one configuration, which is written into its `config.json`.

The file holds the fields of `ExperimentConfig` and the version of their format. A file of an
earlier format is migrated when it is read; the file itself stays as it is.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast, get_type_hints

import jax

from data_prep.errors import InputError, MissingFileError, WriteError
from data_prep.files import write_text
from data_prep.json_text import parse_json
from rmgl_jax.checked_json import json_digest
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.training.logger import LOG_NAME
from rmgl_jax.training.processes import main_process_first
from rmgl_jax.training.run_info import RUN_INFO_NAME
from rmgl_jax.training.scores import list_steps

CONFIG_NAME = "config.json"
CONFIG_FORMAT = 4
"""Format that is written, the top-level `format` of `config.json`."""
# Version 0.1.0 did not record its format.
_VERSIONS = {
    1: "0.1.0",
    2: "0.2.0 before its release",
    3: "0.2.0 before its release",
    4: "0.2.0",
}


class Migration(NamedTuple):
    """Changes of one format. Fields are named by their path, as in "train.num_ids"."""

    renamed: Mapping[str, str] = {}
    """New names by old names."""
    values: Mapping[str, Mapping[str, str]] = {}
    """New values by old values, of each field (by its new name) whose values were renamed."""
    added: Mapping[str, Any] = {}
    """New fields, with the value that stands for what earlier versions did."""
    replaced: Callable[[dict[str, Any]], None] = lambda tree: None
    """Replaces fields in place by others with the same meaning, before all other changes."""


def _separate_abp_and_pooling(tree: dict[str, Any]) -> None:
    """Gives each path its timing of ABP and its reductions, which depended on each other."""
    model = tree.get("model")
    old = ("abp", "abp_paths", "uniform_pool", "balanced_pool")
    if not isinstance(model, dict) or not all(name in model for name in old):
        return  # Reported when the configuration is built.
    timing, balanced_paths, uniform, balanced = (model.pop(name) for name in old)
    for path in ("original", "receptive"):
        abp = timing if path in balanced_paths else "off"
        if path == "receptive" and path not in model.get("paths", ()):
            uniform = "max"  # Had no effect; the default makes equal runs equal.
        training, evaluation = {
            "off": (uniform, None),
            "test": (uniform, None if balanced == uniform else balanced),
        }.get(abp, (balanced, None))
        model[f"{path}_abp"] = abp
        model[f"{path}_pool"] = training
        model[f"{path}_test_pool"] = evaluation


# By the format that made the change. A change of any field of the configuration raises
# CONFIG_FORMAT, and gets its entry here and in _VERSIONS.
MIGRATIONS: Mapping[int, Migration] = {
    2: Migration(
        renamed={"train.persons": "train.num_ids", "train.images": "train.num_instances"},
        values={"train.batch_norm": {"synchronised": "synchronized"}},
    ),
    3: Migration(
        replaced=_separate_abp_and_pooling,
        added={
            "model.branch_after": "res2",
            "model.global_stride": 1,
            "model.global_classifier": "reduced",
            "loss.triplet_normalized": False,
        },
    ),
    4: Migration(added={"optimizer.frozen_until": None}),
}


class ConfigChangedError(InputError):
    """The run directory holds a run of another configuration."""


def init_run_directory(config: ExperimentConfig, workdir: Path) -> None:
    """Creates the run directory of a configuration, or checks that it is of the same one.

    A configuration whose run ended before its first step, because a batch was too large for the
    data or the memory, for instance, is replaced.

    Several processes call this together: process 0 writes, and the others check that they find what
    it wrote and have the same configuration. A failure of one process stops all of them, which
    would otherwise wait for each other in the first step.

    Args:
        config: written to `config.json` if there is none, or none whose run has begun.
        workdir: made if absent; shared by all processes.

    Raises:
        ConfigChangedError: the directory is of another configuration; names every difference.
        InputError: `config.json` is damaged, or of a later version.
        MissingFileError: the processes do not share `workdir`.
        WriteError: the directory cannot be made or written.
        PeerError: another process raised one of these.
    """

    def write_or_compare() -> None:
        if jax.process_index() > 0 and not (workdir / CONFIG_NAME).is_file():
            raise MissingFileError(
                f"Process {jax.process_index()} does not find the {CONFIG_NAME} that process 0 "
                f"wrote: all processes must share the run directory {workdir}."
            )
        replace = jax.process_index() == 0 and not has_begun(workdir)
        _write_or_compare(config, workdir, replace)

    main_process_first(write_or_compare, f"use the run directory {workdir}")


def has_begun(workdir: Path) -> bool:
    """Tells whether a run has done its first step: something of it is logged or saved."""
    log = workdir / LOG_NAME
    logged = log.exists() and log.stat().st_size > 0
    return logged or (workdir / RUN_INFO_NAME).exists() or bool(list_steps(workdir / "checkpoints"))


def _write_or_compare(config: ExperimentConfig, workdir: Path, replace: bool) -> None:
    path = workdir / CONFIG_NAME
    tree = config_to_json(config)
    if path.exists():
        found = sorted(differences(migrate(_read(path), str(path)), tree))
        if not found:
            return
        if not replace:
            raise ConfigChangedError(
                f"{workdir} holds a run of another configuration: {'; '.join(found)}. Use another "
                "run directory, or the old values."
            )
    try:
        write_text(path, json.dumps(tree, indent=2) + "\n")
    except OSError as error:
        raise WriteError(
            f"The run directory {workdir} cannot be written: {error.strerror or error}."
        ) from error


def differences(old: Any, new: Any, name: str = "") -> Iterator[str]:
    """Yields every leaf of two JSON trees that differs, as "a.b was 1, is now 2".

    Of `pretrained` the digest is compared: a file of weights may have been renamed.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        if name == "pretrained" and weights_digest(old) == weights_digest(new):
            return
        yield f"{name} was {old}, is now {new}"


def weights_digest(pretrained: Any) -> str:
    """Returns the digest in a value of `ExperimentConfig.pretrained`, or "none"."""
    return str(pretrained).rpartition(" ")[2]


def read_config(workdir: Path) -> ExperimentConfig:
    """Reads the configuration of a run directory, also one that an earlier version wrote.

    Raises:
        MissingFileError: `workdir` is not a run directory.
        InputError: `config.json` is damaged or of a later version; names the fields in question.
    """
    path = workdir / CONFIG_NAME
    if not path.is_file():
        raise MissingFileError(f"{workdir} is not a run directory: it has no {CONFIG_NAME}.")
    return config_from_json(_read(path), str(path))


def config_digest(workdir: Path) -> str:
    """Returns the digest of the fields in `config.json`, as checkpoints record it.

    Raises:
        InputError: the file is damaged.
    """
    return json_digest(_read(workdir / CONFIG_NAME))


def check_config_digest(workdir: Path, recorded: str | None, step: int) -> None:
    """Checks that `config.json` still is what it was when a checkpoint was saved.

    Args:
        workdir: run directory.
        recorded: `config_digest` at that time; None if an earlier version saved the checkpoint.
        step: step of the checkpoint.

    Raises:
        InputError: the file was changed or is damaged.
    """
    found = config_digest(workdir)
    if recorded is not None and found != recorded:
        raise InputError(
            f"{workdir / CONFIG_NAME} was changed or is damaged: its digest is {found}, not the "
            f"{recorded} that the checkpoint of step {step} was saved with. If the file is "
            "removed, the command that trained the run writes it again."
        )


def config_to_json(config: ExperimentConfig) -> dict[str, Any]:
    """Converts a configuration to a JSON tree, with the version of its format."""
    tree = json.loads(json.dumps(asdict(config)))
    return {"format": CONFIG_FORMAT, **tree}


def config_from_json(tree: dict[str, Any], source: str = "The configuration") -> ExperimentConfig:
    """Builds a configuration from a JSON tree of this or an earlier format.

    Raises:
        InputError: the format is a later one, fields are unknown or missing, or a value is invalid.
    """
    migrated = migrate(tree, source)
    del migrated["format"]
    written = _format(tree)
    origin = f"{source} (format {written}, of rmgl_jax {_VERSIONS[written]})"
    return cast(ExperimentConfig, _build(ExperimentConfig, migrated, origin))


def migrate(
    tree: dict[str, Any], source: str, migrations: Mapping[int, Migration] = MIGRATIONS
) -> dict[str, Any]:
    """Converts the JSON tree of a configuration to the latest format of `migrations`.

    Raises:
        InputError: the tree has a later format.
    """
    latest = max(migrations)
    written = _format(tree)
    if not isinstance(written, int) or not 1 <= written <= latest:
        raise InputError(
            f"{source} has format {written!r}, of another version of rmgl_jax; this version reads "
            f"formats 1 to {latest}."
        )
    tree = copy.deepcopy(tree) | {"format": latest}
    for number in range(written + 1, latest + 1):
        migration = migrations[number]
        migration.replaced(tree)
        for old, new in migration.renamed.items():
            section, name = _section(tree, old)
            if name in section:
                value = section.pop(name)
                section, name = _section(tree, new)
                section[name] = value
        for path, values in migration.values.items():
            section, name = _section(tree, path)
            if isinstance(section.get(name), str):
                section[name] = values.get(section[name], section[name])
        for path, value in migration.added.items():
            section, name = _section(tree, path)
            section.setdefault(name, value)
    return tree


def _format(tree: dict[str, Any]) -> Any:
    return tree.get("format", 1)


def _section(tree: dict[str, Any], path: str) -> tuple[dict[str, Any], str]:
    """Returns the innermost object on the path of a field, and the field's name in it."""
    *parents, name = path.split(".")
    section: Any = tree
    for parent in parents:
        section = section.get(parent) if isinstance(section, dict) else None
    # A tree without that object is reported when the configuration is built.
    return (section, name) if isinstance(section, dict) else ({}, name)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = parse_json(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}.") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} is damaged: it holds {tree!r}.")
    return tree


def _build(kind: type, values: Any, source: str, name: str = "") -> Any:
    """Builds a dataclass from its JSON tree: nested dataclasses, and tuples from lists."""
    if not isinstance(values, dict):
        raise InputError(f"{source} must hold the fields of {name}, got {values!r}.")
    known = {field.name for field in fields(kind)}
    problems = {"unknown": values.keys() - known, "missing": known - values.keys()}
    if any(problems.values()):
        listed = [
            f"{problem} {', '.join(sorted(f'{name}{field}' for field in found))}"
            for problem, found in problems.items()
            if found
        ]
        raise InputError(
            f"{source} does not have the fields of a configuration: {'; '.join(listed)}."
        )
    hints = get_type_hints(kind)
    arguments = {}
    for field, value in values.items():
        if is_dataclass(hints[field]):
            value = _build(cast(type, hints[field]), value, source, f"{name}{field}.")
        elif isinstance(value, list):
            value = tuple(value)
        arguments[field] = value
    try:
        return kind(**arguments)
    except InputError as error:
        raise InputError(f"{source} is invalid: {error}") from error
