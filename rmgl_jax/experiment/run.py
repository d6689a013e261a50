"""What every experiment does: prepare the data, train, evaluate, print one table."""

import dataclasses
import hashlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from data_prep.files import write_text
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.evaluation.result import PaperNumbers
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax


@dataclass(frozen=True)
class RunOptions:
    """One run. What is not under model, augment, loss, optimizer, train or eval can't change it."""

    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
    """What is trained, and how."""
    workdir: str
    """Directory of the run: configuration, logs, checkpoints, result. A run in it goes on."""
    preset: str = "paper"
    """Named configuration that the other options change; the experiment's docstring lists them."""
    source: Path | None = None
    """Directory of the data set's files; needed once, to prepare it."""
    data_dir: Path | None = None
    """Where prepared data sets are kept (TFDS's own directory by default)."""
    allow_partial: bool = False
    """Accepts other image counts than the published ones."""
    weights: Path | None = None
    """ImageNet weights of the backbone (.safetensors, .pth); without, it starts from random."""
    baselines: bool = False
    """Also ranks by raw pixels and by color histograms: the floor a network must rise above."""
    figures: bool = False
    """Ends by writing report.html with pictures, of real people too if the data set has them."""
    distributed: DistributedOptions = field(default_factory=DistributedOptions)


def main(presets: Mapping[str, ExperimentConfig], paper: PaperNumbers, description: str) -> None:
    """The command line of an experiment.

    Args:
        presets: configurations by name; the first is the default.
        paper: numbers to print beside ours.
        description: the experiment's docstring, for `--help`.
    """
    options = parse(presets, description, sys.argv[1:])
    console = Console()
    silence_loggers()
    with report_errors(console):
        start_jax(options.distributed)
        run(options, paper, console)


def parse(
    presets: Mapping[str, ExperimentConfig], description: str, arguments: list[str]
) -> RunOptions:
    """The options of a command line: a preset, changed by whatever else is given."""
    preset = chosen_preset(presets, arguments)
    config = presets[preset]
    default = RunOptions(
        experiment=config,
        workdir=f"runs/{config.dataset.replace('/', '_')}_{preset}",
        preset=preset,
    )
    program = f"python -m experiments.{Path(sys.argv[0]).stem}"
    return tyro.cli(
        RunOptions, prog=program, default=default, args=arguments, description=description
    )


def chosen_preset(presets: Mapping[str, ExperimentConfig], arguments: Sequence[str]) -> str:
    """The preset that a command line names, which decides the defaults of all else."""
    preset = next(iter(presets))
    for index, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name == "--preset":
            preset = value or (arguments[index + 1] if index + 1 < len(arguments) else "")
    if preset not in presets:
        sys.exit(f"There is no preset {preset!r}; there is {', '.join(presets)}.")
    return preset


def run(options: RunOptions, paper: PaperNumbers, console: Console) -> Any:
    """Prepares, trains and evaluates; prints the table and writes `result.json`.

    Returns:
        The `EvaluationResult` of the last step.
    """
    if not options.workdir.strip():
        raise ValueError("The work directory is empty: --workdir wants a path.")
    if "://" in options.workdir:
        raise ValueError(f"--workdir must be a directory that is mounted, got {options.workdir}.")
    workdir = Path(options.workdir).expanduser()
    # Only now: importing these asks jax for its devices, which must follow `start_jax`.
    import jax

    from rmgl_jax.evaluation.protocol import evaluate_splits
    from rmgl_jax.evaluation.result import EvaluationResult, print_results
    from rmgl_jax.models.pretrained import load_backbone
    from rmgl_jax.training.loop import train
    from rmgl_jax.training.run_info import save_run_info

    if options.figures and jax.process_count() > 1:
        raise ValueError(
            "--figures wants a single process; `python -m rmgl_jax.report` writes the report of "
            "a finished run."
        )
    chief = jax.process_index() == 0
    if not chief:
        console = Console(quiet=True)
    config = dataclasses.replace(options.experiment, pretrained=fingerprint(options.weights))
    train_split, query, gallery = load_splits(options, config)
    model = dataclasses.replace(config.model, num_classes=train_split.num_classes)
    config = dataclasses.replace(config, model=model)
    console.print(_describe(config, train_split, query, gallery), highlight=False)

    def initialize(variables: dict[str, Any]) -> dict[str, Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            variables = load_backbone(options.weights, variables, model)
        for warning in caught:
            console.print(f"Note: {warning.message}", highlight=False, markup=False)
        return variables

    results: list[EvaluationResult] = []

    def measure(variables: dict[str, Any], step: int | None = None) -> dict[str, float]:
        result = evaluate_splits(
            model,
            variables,
            query,
            gallery,
            config.eval,
            checkpoint=str(workdir),
            step=step,
            trained_on=config.dataset,
            console=console if console.is_terminal else None,
        )
        results.append(result)
        return {
            "rank-1": float(result.plain.cmc[0]),
            "mean_ap": result.plain.mean_ap,
            "mean_ap_official": result.plain.mean_ap_official,
            "mean_inp": result.plain.mean_inp,
        }

    state = train(
        config,
        train_split,
        workdir,
        initialize=initialize if options.weights else None,
        evaluate=measure,
        console=console,
    )
    if not results:  # The run was complete before.
        measure({"params": state.params, "batch_stats": state.batch_stats})
    elif chief:
        save_run_info(workdir)
    result = dataclasses.replace(results[-1], step=str(int(state.step)))
    if chief:
        write_text(workdir / "result.json", result.to_json())
    floor = rank_baselines(query, gallery) if options.baselines and chief else None
    print_results([result], paper, baselines=floor, console=console)
    if options.figures:
        from rmgl_jax.report.page import write_report

        report = write_report(workdir, data_dir=options.data_dir, figures=True)
        console.print(f"The report is in {report}", highlight=False, markup=False)
    console.print(f"Everything of this run is in {workdir}", highlight=False)
    return result


def rank_baselines(query: Any, gallery: Any) -> dict[str, Any]:
    """`RankMetrics` of what needs no network, by name."""
    from rmgl_jax.evaluation.baselines import color_histogram_embedding, pixel_embedding
    from rmgl_jax.evaluation.ranking import rank_features

    identities = (query.pids, query.camids, gallery.pids, gallery.camids)
    methods = {"raw pixels": pixel_embedding, "color histograms": color_histogram_embedding}
    return {
        name: rank_features(embed(query.images), embed(gallery.images), *identities)
        for name, embed in methods.items()
    }


def load_splits(options: RunOptions, config: ExperimentConfig) -> tuple[Any, Any, Any]:
    """The decoded train, query and gallery splits; prepared and decoded on first use."""
    from data_prep import prepare_dataset
    from rmgl_jax.data.store import decode_split

    builder = prepare_dataset(
        config.dataset, options.source, options.data_dir, allow_partial=options.allow_partial
    )
    return tuple(
        decode_split(builder, split, config.model.image_size)
        for split in ("train", "query", "gallery")
    )


def _describe(config: ExperimentConfig, train: Any, query: Any, gallery: Any) -> str:
    import jax

    devices = jax.devices()
    return (
        f"{train.dataset} {train.version}: train {len(train.pids):,} images of "
        f"{train.num_classes:,} identities, query {len(query.pids):,}, gallery "
        f"{len(gallery.pids):,} at {config.model.image_size[0]}x{config.model.image_size[1]}; "
        f"backbone from {config.pretrained}; {len(devices)} x {devices[0].device_kind}, "
        f"seed {config.train.seed}"
    )


def fingerprint(weights: Path | None) -> str:
    """Name and digest of a weights file, as a configuration records it."""
    if weights is None:
        return "none"
    if not weights.is_file():
        raise FileNotFoundError(f"There is no weights file {weights}.")
    return f"{weights.name} sha256:{hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}"
