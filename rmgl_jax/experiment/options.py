"""Command-line options of runs, sweeps and evaluation, and their parser.

The options are derived from dataclasses: the docstring under a field is its `--help` text. This
module imports nothing slow, so that `--help` is fast.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from data_prep.errors import InputError
from rmgl_jax.config import EvalConfig, ExperimentConfig, ModelConfig, TrainConfig
from rmgl_jax.experiment.results import Sweep
from rmgl_jax.runtime import DistributedOptions

Options = TypeVar("Options")


@dataclass(frozen=True)
class DataOptions:
    """Source and directory of the data."""

    source: Path | None = None
    """Directory of the dataset's files, needed once to prepare it."""
    data_dir: Path | None = None
    """Directory of prepared datasets. The default is TFDS's own directory."""
    allow_partial: bool = False
    """Accept other image counts than the published ones."""


@dataclass(frozen=True)
class RunOptions:
    """Options of one run. Only those of the configuration change its result."""

    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
    """The configuration."""
    workdir: str
    """Directory of the run: configuration, logs, checkpoints, result. A run in it resumes."""
    preset: str = "paper"
    """Named configuration that the other options change; the presets are listed above."""
    data: Annotated[DataOptions, tyro.conf.arg(name="")] = field(default_factory=DataOptions)
    """Source and directory of the data."""
    weights: Path | None = None
    """ImageNet weights of the backbone (.safetensors, .pth). A full ResNet requires them."""
    from_scratch: bool = False
    """Start a full ResNet from random weights on purpose."""
    baselines: bool = False
    """Also rank by raw pixels and by color histograms, as a baseline."""
    figures: bool = False
    """Write report.html at the end, with pictures; they show real people if the dataset does."""
    profile: int | None = None
    """Record a profile of this many steps in the run directory; see docs/how_to/profile.md."""
    distributed: DistributedOptions = field(default_factory=DistributedOptions)
    """Training on several processes (hosts); see docs/pods.md."""
    debug: bool = False
    """Show the traceback of expected errors."""


@dataclass(frozen=True)
class SweepOptions:
    """Options of one table or figure. Those of the configuration apply to all rows."""

    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
    """The base configuration, which the rows change."""
    workdir: Path
    """Directory of the sweep: one directory per run, and the table. A sweep in it resumes."""
    preset: str = "paper"
    """Named configuration that the other options change; the presets are listed above."""
    seeds: int = 1
    """Runs of every row, with seeds from --train.seed on. Mean and spread are reported."""
    rows: tuple[str, ...] = ()
    """Names of the rows to run. The default is all."""
    only_draw: bool = False
    """Run nothing; show the results that are in the directory."""
    data: Annotated[DataOptions, tyro.conf.arg(name="")] = field(default_factory=DataOptions)
    """Source and directory of the data."""
    weights: Path | None = None
    """ImageNet weights of the backbone (.safetensors, .pth). A full ResNet requires them."""
    from_scratch: bool = False
    """Start a full ResNet from random weights on purpose."""
    debug: bool = False
    """Show the traceback of expected errors."""


@dataclass(frozen=True)
class CheckpointOptions:
    """Selection of a checkpoint, and settings of its evaluation."""

    step: int | None = None
    """Training step of the checkpoint in a run directory. The default is the latest."""
    best: bool = False
    """Take the checkpoint with the greatest mAP among those that the run evaluated."""
    settings: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)
    """Settings of the evaluation."""
    debug: bool = False
    """Show the traceback of expected errors."""


@dataclass(frozen=True)
class EvaluateOptions(CheckpointOptions):
    """Options of an evaluation on one dataset."""

    checkpoint: Path = tyro.MISSING
    """Run directory, or model file (.safetensors)."""
    dataset: str = tyro.MISSING
    """Name of the dataset, as "market1501", "cuhk03_np/labeled" or "folder/NAME"."""
    data: Annotated[DataOptions, tyro.conf.arg(name="")] = field(default_factory=DataOptions)
    """Source and directory of the data."""
    query_expansion: bool = False
    """Also rank by alpha query expansion."""
    roc: bool = False
    """Also measure true positive rates at false positive rates of 1e-4 to 1e-1."""
    by_part: bool = False
    """Also rank by each branch, path, region and feature of the embeddings alone."""
    output: Path | None = None
    """File (.json) for the whole result, with the values of each query."""


@dataclass(frozen=True)
class CrossDatasetOptions(CheckpointOptions):
    """Options of an evaluation on all prepared datasets."""

    checkpoint: tuple[Path, ...] = tyro.MISSING
    """Run directories, or model files (.safetensors). Several are shown as one matrix too."""
    data_dir: Path | None = None
    """Directory of prepared datasets. The default is TFDS's own directory."""
    allow_partial: bool = False
    """Accept other image counts than the published ones."""
    output: Path | None = None
    """Directory for one file per dataset. The default is `table4` in each run directory."""


# Filled in from the data and from --weights.
_FIXED = {ModelConfig: ("num_classes",), ExperimentConfig: ("pretrained",)}
# Fields that --help shows; of classes that are not listed it shows all.
_FIRST = {
    RunOptions: (
        *("preset", "experiment", "data", "workdir", "weights", "from_scratch"),
        *("figures", "debug"),
    ),
    SweepOptions: (
        *("preset", "experiment", "data", "workdir", "weights", "from_scratch", "debug"),
        *("seeds", "rows", "only_draw"),
    ),
    ExperimentConfig: ("dataset", "train"),
    TrainConfig: ("epochs", "num_ids", "num_instances", "seed"),
    DataOptions: ("source", "data_dir"),
}


def parse_run(
    presets: Mapping[str, ExperimentConfig],
    description: str,
    arguments: Sequence[str],
    prog: str | None = None,
) -> RunOptions:
    """Parses the command line of a run: a preset, changed by the other options.

    Args:
        presets: configurations by name; the first is the default.
        description: text of `--help`, which lists the presets.
        arguments: the command line without the program.
        prog: name of the command; None is that of the run card that is running.

    Raises:
        InputError: there is no such preset.
        SystemExit: after `--help`, and for wrong options.
    """
    preset = choose_preset(presets, arguments)
    config = presets[preset]
    # --help shows the pattern, as the dataset is not known before the options are parsed.
    pattern = "runs/DATASET_PRESET"
    default = RunOptions(experiment=config, workdir=pattern, preset=preset)
    options = _parse(default, description, arguments, prog)
    if options.workdir == pattern:
        options = replace(options, workdir=f"runs/{_run_name(options.experiment, preset)}")
    return options


def parse_sweep(sweep: Sweep, description: str, arguments: Sequence[str]) -> SweepOptions:
    """Parses the command line of a table or figure; see `parse_run`."""
    preset = choose_preset(sweep.presets, arguments)
    pattern = Path(f"runs/{sweep.name}_DATASET_PRESET")
    default = SweepOptions(experiment=sweep.presets[preset], workdir=pattern, preset=preset)
    prog = f"python -m experiments.{sweep.name}"
    options = _parse(default, description, arguments, prog)
    if options.workdir == pattern:
        name = f"{sweep.name}_{_run_name(options.experiment, preset)}"
        options = replace(options, workdir=Path("runs") / name)
    return options


def _run_name(config: ExperimentConfig, preset: str) -> str:
    return f"{config.dataset.replace('/', '_')}_{preset}"


def parse_evaluate(
    description: str, arguments: Sequence[str], prog: str | None = None
) -> EvaluateOptions:
    """Parses the command line of an evaluation on one dataset; see `parse_run`.

    A first argument that is not an option is the checkpoint.
    """
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--checkpoint", *arguments]
    return _parse(EvaluateOptions(), description, arguments, prog)


def parse_cross_dataset(
    description: str, arguments: Sequence[str], prog: str | None = None
) -> CrossDatasetOptions:
    """Parses the command line of an evaluation on all datasets; see `parse_run`."""
    return _parse(CrossDatasetOptions(), description, arguments, prog)


def choose_preset(presets: Mapping[str, ExperimentConfig], arguments: Sequence[str]) -> str:
    """Name of the preset in a command line, which decides the defaults of all other options.

    Raises:
        InputError: there is no such preset.
    """
    preset = find_value(arguments, "--preset", next(iter(presets)))
    if preset not in presets:
        raise InputError(f"There is no preset {preset!r}; the presets are {', '.join(presets)}.")
    return preset


def find_value(arguments: Sequence[str], option: str, default: str) -> str:
    """Value of an option (`--option VALUE` or `--option=VALUE`) in an unparsed command line."""
    found = default
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option:
            found = value if equals else "".join(arguments[index + 1 : index + 2])
    return found


def _parse(
    default: Options, description: str, arguments: Sequence[str], prog: str | None
) -> Options:
    """Parses options over their defaults; `--help` shows the first ones, `--help-all` all."""
    everything = {"--help-all", "--help_all"} & set(arguments)
    shorten = not everything and {"-h", "--help"} & set(arguments) and type(default) in _FIRST
    if shorten:
        description += "\n\n--help-all shows every option, with all fields of the configuration."
    with _visibility(_FIRST if shorten else {}):
        return tyro.cli(
            type(default),
            prog=prog or f"python -m experiments.{Path(sys.argv[0]).stem}",
            default=default,
            args=["--help"] if everything else arguments,
            description=description,
        )


def _visibility(shown: Mapping[type, Sequence[str]]) -> ConstructorRegistry:
    """Rules for tyro that remove fixed fields, and in classes of `shown` all other fields."""
    registry = ConstructorRegistry()
    inside = False

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal inside
        if inside or not dataclasses.is_dataclass(info.type):
            return None
        # tyro's own rule, which this one must not replace but change.
        inside = True
        spec = ConstructorRegistry.get_struct_spec(info)
        inside = False
        if not isinstance(spec, StructConstructorSpec):
            return None

        def mark(field: StructFieldSpec) -> StructFieldSpec:
            fixed = field.name in _FIXED.get(info.type, ())
            if fixed or field.name not in shown.get(info.type, (field.name,)):
                kind: Any = Annotated[field.type, tyro.conf.Fixed, tyro.conf.Suppress]
                return replace(field, type=kind)
            return field

        return replace(spec, fields=tuple(mark(field) for field in spec.fields))

    return registry
