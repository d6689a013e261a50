"""Evaluating a trained network on one data set, or on all that are prepared."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_prep.files import write_text
from rmgl_jax.config import EvalConfig
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax

if TYPE_CHECKING:  # Importing these asks jax for its devices.
    from rmgl_jax.evaluation.result import EvaluationResult
    from rmgl_jax.export.model_file import TrainedModel

PairNumbers = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Published numbers in percent by the set that is trained on, that tested on, and measure."""

# MSMT17's two training sets share their test images.
_PUBLISHED = (
    ("market1501",),
    ("dukemtmc_reid",),
    ("cuhk03_np/labeled",),
    ("cuhk03_np/detected",),
    ("msmt17/train", "msmt17/trainval"),
)


@dataclass(frozen=True)
class _CheckpointOptions:
    checkpoint: Path
    """Work directory of the run that trained the network."""
    step: int | None = None
    """Training step of the checkpoint; the latest by default."""
    best: bool = False
    """Takes the checkpoint with the greatest mAP of those the run has evaluated."""
    settings: Annotated[EvalConfig, tyro.conf.arg(name="")] = field(default_factory=EvalConfig)
    """How it is evaluated."""
    data_dir: Path | None = None
    """Where prepared data sets are kept (TFDS's own directory by default)."""
    allow_partial: bool = False
    """Accepts other image counts than the published ones."""


@dataclass(frozen=True)
class EvaluateOptions(_CheckpointOptions):
    """One evaluation."""

    dataset: str = tyro.MISSING
    """Name of the data set, as "market1501", "cuhk03_np/labeled" or "folder/NAME"."""
    source: Path | None = None
    """Directory of the data set's files; needed once, to prepare it."""
    query_expansion: bool = False
    """Also ranks by alpha query expansion."""
    roc: bool = False
    """Also measures true positive rates at false positive rates of 1e-4 to 1e-1."""
    output: Path | None = None
    """File (.json) for the whole result, with the values of each query."""


@dataclass(frozen=True)
class TableOptions(_CheckpointOptions):
    """One table."""

    output: Path | None = None
    """Directory for a file of each pair; `table4` in the work directory by default."""


def evaluate_main(description: str) -> None:
    """The command line of `experiments.evaluate`."""
    console = Console()
    options = _parse(EvaluateOptions, description, sys.argv[1:])
    silence_loggers()
    with report_errors(console):
        start_jax(DistributedOptions())
        evaluate_run(options, console)


def table_main(
    paper: PairNumbers, description: str, others: Mapping[str, PairNumbers] | None = None
) -> None:
    """The command line of `experiments.table4_cross_dataset`."""
    console = Console()
    options = _parse(TableOptions, description, sys.argv[1:])
    silence_loggers()
    with report_errors(console):
        start_jax(DistributedOptions())
        cross_table(options, paper, console, others)


def evaluate_run(options: EvaluateOptions, console: Console) -> "EvaluationResult":
    """Evaluates a run's network on one data set; prints the result and writes it if asked to.

    Raises:
        FileNotFoundError: the work directory, its checkpoints or the data set are not there.
        ValueError: the data set has no query or no gallery; see also `load_model`.
    """
    from data_prep import prepare_dataset
    from rmgl_jax.evaluation.result import print_results

    trained = _load(options)
    builder = prepare_dataset(
        options.dataset, options.source, options.data_dir, allow_partial=options.allow_partial
    )
    result = _evaluate(
        trained, options, builder, console, expand=options.query_expansion, verify=options.roc
    )
    print_results([result], console=console)
    if options.output is not None:
        write_text(options.output, result.to_json())
        console.print(f"Written to {options.output}", highlight=False, markup=False)
    return result


def cross_table(
    options: TableOptions,
    paper: PairNumbers,
    console: Console,
    others: Mapping[str, PairNumbers] | None = None,
) -> "list[EvaluationResult]":
    """Evaluates a run's network on every prepared data set; prints one table.

    The paper's numbers stand beside ours, and those of the others by their methods' names.

    A pair that was evaluated before, with the same weights, data and settings, is read from its
    file instead.

    Raises:
        FileNotFoundError: the work directory or its checkpoints are not there.
        ValueError: no data set is prepared; or some could not be evaluated, which is said after
            the table of the others. See also `load_model`.
    """
    from data_prep import prepare_dataset

    trained = _load(options)
    prepared, missing = prepared_sets(options.data_dir)
    if missing:
        console.print(f"Not prepared: {', '.join(missing)}.", highlight=False)
    if not prepared:
        where = options.data_dir or "TFDS's own directory"
        raise ValueError(f"No data set is prepared in {where}: see docs/datasets.md.")
    directory = options.output or options.checkpoint / "table4"
    source = trained.config.dataset
    results, problems = [], []
    for name in prepared:
        path = directory / f"{source}-to-{name}.json".replace("/", "_")
        try:
            builder = prepare_dataset(
                name, data_dir=options.data_dir, allow_partial=options.allow_partial
            )
            result = _read_pair(path, trained, options, builder)
            if result is None:
                console.print(f"{source} to {name}", highlight=False)
                result = _evaluate(trained, options, builder, console)
                write_text(path, result.to_json())
            else:
                console.print(f"{source} to {name}: from {path}", highlight=False, markup=False)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            continue
        results.append(result)
    if results:
        published = {"paper": paper, **(others or {})}
        console.print(
            _table(results, {name: by.get(_family(source), {}) for name, by in published.items()})
        )
        console.print(f"Each pair is in {directory}", highlight=False, markup=False)
    if problems:
        raise ValueError(f"{len(problems)} sets were not evaluated. " + " ".join(problems))
    return results


def prepared_sets(data_dir: Path | None) -> tuple[list[str], list[str]]:
    """Names of the data sets that are prepared, and of the published ones that are not."""
    from data_prep.preparing import make_builder

    def is_prepared(name: str) -> bool:
        builder = make_builder(name, None, data_dir, allow_partial=True)
        # TFDS logs a warning where there is nothing at all.
        return builder.data_path.exists() and builder.is_prepared()

    prepared, missing = [], []
    for variants in _PUBLISHED:
        found = [name for name in variants if is_prepared(name)]
        prepared += found[:1]
        missing += [] if found else [" or ".join(variants)]
    root = Path(make_builder("market1501", None, data_dir, allow_partial=True).data_dir_root)
    others = [
        f"{kind}/{directory.name}"
        for kind in ("synthetic", "folder")
        for directory in sorted((root / kind).glob("[!.]*"))
        if directory.is_dir()
    ]
    return prepared + [name for name in others if is_prepared(name)], missing


def _parse(kind: type, description: str, arguments: Sequence[str]) -> Any:
    program = f"python -m experiments.{Path(sys.argv[0]).stem}"
    return tyro.cli(kind, prog=program, args=arguments, description=description)


def _load(options: _CheckpointOptions) -> "TrainedModel":
    from rmgl_jax.export.model_file import load_model

    return load_model(options.checkpoint.expanduser(), options.step, options.best)


def _evaluate(
    trained: "TrainedModel",
    options: _CheckpointOptions,
    builder: Any,
    console: Console,
    **extras: bool,
) -> "EvaluationResult":
    from rmgl_jax.data.store import decode_split
    from rmgl_jax.evaluation.protocol import evaluate_splits

    lacking = {"query", "gallery"} - set(builder.info.splits)
    if lacking:
        raise ValueError(f"{builder.data_path} has no images of {' and '.join(sorted(lacking))}.")
    model = trained.config.model
    return evaluate_splits(
        model,
        trained.variables,
        *(decode_split(builder, split, model.image_size) for split in ("query", "gallery")),
        options.settings,
        checkpoint=str(options.checkpoint),
        step=trained.step,
        trained_on=trained.config.dataset,
        digest=trained.digest,
        console=console if console.is_terminal else None,
        **extras,
    )


def _read_pair(
    path: Path, trained: "TrainedModel", options: TableOptions, builder: Any
) -> "EvaluationResult | None":
    """The result in a file, if it is just what would be evaluated now."""
    from rmgl_jax.evaluation.result import EvaluationResult

    try:
        result = EvaluationResult.from_json(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    wanted, again = options.settings, result.reranked
    splits = builder.info.splits
    same = (
        result.digest == trained.digest
        and result.version == str(builder.version)
        and all(name in splits for name in ("query", "gallery"))
        and result.n_query == splits["query"].num_examples
        and result.n_gallery == splits["gallery"].num_examples
        and result.flipped == wanted.flip
        and (again and (again.k1, again.k2, again.lambda_value))
        == ((wanted.k1, wanted.k2, wanted.lambda_value) if wanted.rerank else None)
    )
    return result if same else None


def _family(name: str) -> str:
    return name.partition("/")[0]


def _is_own(result: "EvaluationResult") -> bool:
    """Whether the test images are of the set that was trained on, in whatever variant."""
    family = _family(result.dataset)
    return result.dataset == result.trained_on or (
        family in ("cuhk03_np", "msmt17") and family == _family(result.trained_on)
    )


def _table(results: "Sequence[EvaluationResult]", published: PairNumbers) -> Table:
    """One table for all targets; what they have in common is in its title.

    Args:
        results: one a target.
        published: numbers by what they are of, data set that is tested on and measure.
    """
    from rmgl_jax.evaluation.result import measures

    first = results[0]
    title = [
        f"TrainedModel on {first.trained_on}: {first.checkpoint}, step {first.step}; in percent",
        "embeddings of image and mirror averaged" if first.flipped else "not flipped",
    ]
    if first.reranked is not None:
        r = first.reranked
        title.append(f"re-ranking: k1 {r.k1}, k2 {r.k2}, lambda {r.lambda_value:g}")
    table = Table(
        title=Text("\n".join(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    columns = ("rank-1", "mAP (step)", "mAP (official)", "mAP (not said)", "mINP")
    table.add_column("tested on", overflow="fold")
    for name in columns:
        table.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for result in results:
        own = _is_own(result)
        table.add_row(
            f"{result.dataset} {result.version}{', its own' if own else ''}: "
            f"{result.n_query:,} queries, {result.n_gallery:,} gallery images"
            f"{'' if result.same_camera_rule else ', no camera ids'}"
        )
        rows = [("not re-ranked", measures(result.plain))]
        for method, by_target in published.items():
            if not own and _family(result.dataset) in by_target:
                # None says which mAP.
                found = by_target[_family(result.dataset)]
                numbers = {
                    name.replace("mAP", "mAP (not said)"): value for name, value in found.items()
                }
                rows.append((f"{method}, not re-ranked", numbers))
        if result.reranked is not None:
            rows.append(("re-ranked", measures(result.reranked.metrics)))
        for name, values in rows:
            cells = (f"{values[column]:.2f}" if column in values else "–" for column in columns)
            table.add_row(f"  {name}", *cells, end_section=name == rows[-1][0])
    return table
