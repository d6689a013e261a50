"""Tables and figures of the paper: runs of named configurations, one after another.

Every run has its own work directory, `<workdir>/<row>/seed<k>`. An interrupted sweep resumes:
finished runs are not repeated, and the interrupted one continues from its checkpoint. Tables and
figures are made from the files of the runs alone.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
from rich.console import Console

from data_prep.errors import ExpectedError, InputError
from data_prep.files import expand, write_text
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.data.split import Split
from rmgl_jax.evaluation.result import EvaluationResult, PaperNumbers
from rmgl_jax.experiment.figure import draw
from rmgl_jax.experiment.initial_weights import check_initial_weights
from rmgl_jax.experiment.options import SweepOptions
from rmgl_jax.experiment.results import RERANKED, Results, Row, Sweep
from rmgl_jax.experiment.run import describe_weights, train
from rmgl_jax.experiment.splits import load_train_and_test
from rmgl_jax.experiment.table import (
    SIGNIFICANT,
    difference_grid,
    paper_grid,
    to_markdown,
    to_rich,
)
from rmgl_jax.training.run_data import check_run_data, read_run_data
from rmgl_jax.training.run_directory import (
    CONFIG_NAME,
    differences,
    has_begun,
    read_config,
    weights_digest,
)

_MOST_SEEDS = 1000
_TEST_NOTE = (
    "Mean and standard deviation over the n seeds, in percent. A difference of two rows is called "
    f"significant where Welch's two-sided t-test gives p < {SIGNIFICANT:g}. Each test is made "
    "on its own: among many rows some are significant by chance. One seed allows no claim. The "
    "spread is that of training; it does not cover the choice of the test set."
)


@dataclass(frozen=True)
class PlannedRun:
    """One row with one seed."""

    row: Row
    config: ExperimentConfig
    directory: Path

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"{self.row.name}, seed {self.config.train.seed}"

    @property
    def result(self) -> Path:
        """Result file, which exists when the run has finished."""
        return self.directory / "result.json"

    @property
    def paper(self) -> PaperNumbers:
        """Published numbers of the row on the dataset it runs on."""
        names = (self.config.dataset, self.config.dataset + RERANKED)
        return {name: self.row.paper[name] for name in names if name in self.row.paper}


RunOne = Callable[[PlannedRun, SweepOptions, Console], object]
"""Trains and evaluates; writes `config.json` and `result.json` into the run's directory."""


def train_planned(planned: PlannedRun, options: SweepOptions, console: Console) -> None:
    """Trains and evaluates one run of a sweep."""
    try:
        train(
            planned.config,
            planned.directory,
            source=options.data.source,
            data_dir=options.data.data_dir,
            allow_partial=options.data.allow_partial,
            weights=options.weights,
            from_scratch=options.from_scratch,
            paper=planned.paper,
            console=console,
        )
    finally:
        # The next run has other programs; those of this one would only take memory.
        jax.clear_caches()
        gc.collect()


def run_sweep(
    sweep: Sweep, options: SweepOptions, console: Console, run_one: RunOne = train_planned
) -> None:
    """Executes the runs that have no result yet, seed by seed, and shows all results.

    Args:
        sweep: the rows.
        options: which of them, how often and where.
        console: for messages and tables.
        run_one: executes one run.

    Raises:
        InputError: an option is wrong, the dataset has no test set, or the work directory holds
            runs of another configuration.
        ExpectedError: some rows failed. They are named after the others were run and shown.
    """
    selected = choose_rows(sweep, options.rows)
    plan, problems = make_plan(selected, options)
    for problem in problems:
        console.print(problem, highlight=False, markup=False)
    if not options.only_draw:
        for planned in plan:
            check_initial_weights(planned.config, options.weights, options.from_scratch)
        check_plan(plan)
        finished_runs(selected, options)  # The table also shows other seeds: none may be refused.
        problems += _run_all(plan, options, console, run_one)
    show(sweep, finished_runs(selected, options), options, console)
    if problems and not options.only_draw:
        raise ExpectedError(f"{len(problems)} without a result. {' '.join(problems)}")


def choose_rows(sweep: Sweep, names: Sequence[str]) -> tuple[Row, ...]:
    """Rows of these names in the order of the table; all rows if no names are given.

    Raises:
        InputError: there is no such row.
    """
    known = [row.name for row in sweep.rows]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"{sweep.name} has no row {', '.join(unknown)}; its rows are {', '.join(known)}."
        )
    return tuple(row for row in sweep.rows if not names or row.name in names)


def make_plan(rows: Sequence[Row], options: SweepOptions) -> tuple[list[PlannedRun], list[str]]:
    """All runs, seed by seed, so that a sweep that is stopped early has complete tables.

    Returns:
        The runs, and a message for each row that is impossible with this preset, such as four
        stripes of a map of six rows.

    Raises:
        InputError: the number of seeds is not positive.
    """
    if not 1 <= options.seeds <= _MOST_SEEDS:
        raise InputError(f"--seeds must be 1 to {_MOST_SEEDS}, got {options.seeds}.")
    base = replace(options.experiment, pretrained=describe_weights(options.weights))
    possible, problems = [], []
    for row in rows:
        try:
            row.overrides(base)
            possible.append(row)
        except ValueError as error:
            problems.append(f"{row.name} is not possible with this preset: {error}")
    first = base.train.seed
    seeds = range(first, first + options.seeds)
    return [_plan(row, base, seed, options) for seed in seeds for row in possible], problems


def _plan(row: Row, base: ExperimentConfig, seed: int, options: SweepOptions) -> PlannedRun:
    config = row.overrides(base)
    config = replace(config, train=replace(config.train, seed=seed))
    return PlannedRun(row, config, expand(options.workdir) / row.name / f"seed{seed}")


def check_plan(plan: Sequence[PlannedRun], any_weights: bool = False) -> None:
    """Checks that existing work directories hold runs of the planned configurations.

    Args:
        plan: the runs.
        any_weights: accept runs that started from other weights.

    Raises:
        InputError: names the run and every field that differs.
    """
    for planned in plan:
        differing = list(_differences(planned, any_weights))
        if differing:
            raise InputError(
                f"{planned.directory} holds a run of another configuration: "
                f"{'; '.join(differing)}. Use another --workdir, or the old values."
            )


def _differences(planned: PlannedRun, any_weights: bool) -> Iterator[str]:
    if not planned.result.exists() and not (
        (planned.directory / CONFIG_NAME).exists() and has_begun(planned.directory)
    ):
        return
    stored, mine = read_config(planned.directory), planned.config
    # The number of identities comes from the data.
    mine = replace(mine, model=replace(mine.model, num_classes=stored.model.num_classes))
    if any_weights:
        mine = replace(mine, pretrained=stored.pretrained)
    yield from differences(asdict(stored), asdict(mine))


def _run_all(
    plan: Sequence[PlannedRun], options: SweepOptions, console: Console, run_one: RunOne
) -> list[str]:
    """Executes the runs that have no result yet; returns a message for each that failed."""
    problems: list[str] = []
    finished = [planned for planned in plan if planned.result.exists()]
    if len(finished) < len(plan):
        splits = _load_data(plan[0].config, options)
        for planned in finished:
            check_run_data(planned.directory, splits)
    for number, planned in enumerate(plan, start=1):
        heading = f"[{number}/{len(plan)}] {planned.name}"
        if planned.result.exists():
            console.print(f"{heading}: done before", highlight=False, markup=False)
            continue
        console.rule(heading.replace("[", r"\["))
        try:
            run_one(planned, options, console)
        except (ExpectedError, OSError, RuntimeError) as error:
            problems.append(f"{planned.name}: {type(error).__name__}: {error}")
            console.print(f"Failed: {problems[-1]}", highlight=False, markup=False)
    return problems


def _load_data(config: ExperimentConfig, options: SweepOptions) -> list[Split]:
    """Prepares and decodes the data once, so that its problems are reported once."""
    train_split, test = load_train_and_test(
        config.dataset,
        config.model.image_size,
        source=options.data.source,
        data_dir=options.data.data_dir,
        allow_partial=options.data.allow_partial,
    )
    if test is None:
        raise InputError(
            f"{config.dataset} has no query and gallery images, which tables and figures require."
        )
    return [train_split, *test]


def finished_runs(rows: Sequence[Row], options: SweepOptions) -> dict[Row, list[EvaluationResult]]:
    """Results of the finished runs of each row, of whatever seeds.

    Raises:
        InputError: a run has another configuration, the runs started from different weights or
            are on different data, or a result is damaged.
    """
    found: dict[Row, list[EvaluationResult]] = {row: [] for row in rows}
    weights: dict[str, str] = {}
    first_name, first_data = "", dict[str, str]()
    for row in rows:
        directory = expand(options.workdir) / row.name
        seeds = (path.parent.name[4:] for path in directory.glob("seed*/result.json"))
        for seed in sorted(int(seed) for seed in seeds if seed.isdecimal()):
            planned = _plan(row, options.experiment, seed, options)
            check_plan([planned], any_weights=True)
            pretrained = read_config(planned.directory).pretrained
            weights[weights_digest(pretrained)] = f"{pretrained} ({planned.name})"
            # Runs of earlier versions have no record of their data.
            if data := read_run_data(planned.directory):
                first_name, first_data = first_name or planned.name, first_data or data
                if changed := "; ".join(differences(first_data, data)):
                    raise InputError(
                        f"The runs of one table are on different data: from {first_name} to "
                        f"{planned.name}, {changed}."
                    )
            try:
                found[row].append(EvaluationResult.from_json(planned.result.read_text()))
            except ValueError as error:
                raise InputError(f"{planned.result} is damaged: {error}") from error
    if len(weights) > 1:
        raise InputError(
            f"The runs of one table started from different weights: {', '.join(weights.values())}."
        )
    return found


def show(sweep: Sweep, results: Results, options: SweepOptions, console: Console) -> None:
    """Prints the tables of a sweep, and writes them as Markdown and its figure as PNG."""
    if not any(results.values()):
        console.print("No run has finished yet: there is nothing to show.", highlight=False)
        return
    dataset = options.experiment.dataset
    grids = [paper_grid(sweep, results, dataset)]
    if grid := difference_grid(results):
        grids.append(grid)
    notes = _notes(sweep, results, options)
    for grid in grids:
        console.print(to_rich(grid))
    for note in notes:
        console.print(note, highlight=False, markup=False)
    path = expand(options.workdir) / f"{sweep.name}.md"
    if any(row.points for row in results):
        draw(sweep, results, dataset, path.with_suffix(".png"))
        console.print(f"Drawn to {path.with_suffix('.png')}", highlight=False, markup=False)
    parts = [f"# {sweep.title}", *notes, *map(to_markdown, grids)]
    write_text(path, "\n\n".join(parts) + "\n")
    console.print(f"Written to {path}", highlight=False, markup=False)


def _budget(config: ExperimentConfig) -> str:
    train = config.train
    return f"{train.epochs} epochs of batches of {train.num_ids} x {train.num_instances}"


def _notes(sweep: Sweep, results: Results, options: SweepOptions) -> list[str]:
    """Conditions of the measurement, and the rows that are missing."""
    config = options.experiment
    size = "x".join(map(str, config.model.image_size))
    first = next(run for runs in results.values() for run in runs)
    notes = [
        f"{first.dataset} {first.version}, {first.n_query:,} queries, {first.n_gallery:,} gallery "
        f"images; preset {options.preset}: {size}, {_budget(config)}, stages of "
        f"{config.model.depth} blocks, width {config.model.width}. The result is that of the last "
        "step.",
        _TEST_NOTE,
    ]
    budgets = {row.name: _budget(row.overrides(config)) for row, runs in results.items() if runs}
    if others := [
        f"{name} has {budget}" for name, budget in budgets.items() if budget != _budget(config)
    ]:
        notes.append(f"Unlike the others, {'; '.join(others)}.")
    datasets = sorted({key.removesuffix(RERANKED) for row in results for key in row.paper})
    if datasets and config.dataset not in datasets:
        notes.append(
            f"The paper has numbers of {', '.join(datasets)} only, not of {config.dataset}."
        )
    elif datasets:
        notes.append(
            "The paper does not say which mAP it reports; the difference is to the step one. It "
            "gives no spread. Its network is ResNet-50 with ImageNet weights at 384x128."
        )
    missing = [row.name for row, runs in results.items() if not runs]
    if missing:
        notes.append(f"Not run: {', '.join(missing)}.")
    left_out = [row.name for row in sweep.rows if row not in results]
    if left_out:
        notes.append(f"Not selected: {', '.join(left_out)}.")
    return [*notes, sweep.note] if sweep.note else notes
