"""A table or figure of the paper: runs of named configurations, one after another.

Every run has a work directory of its own, `<workdir>/<row>/seed<k>`, with what any run has in it.
A sweep that was interrupted goes on: finished runs are not run again, the one that was interrupted
goes on from its checkpoint. What is shown is read from the runs' files alone.
"""

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.evaluation.result import PaperNumbers
from rmgl_jax.experiment import run as single
from rmgl_jax.experiment.results import RERANKED, Row, Sweep
from rmgl_jax.experiment.run import RunOptions
from rmgl_jax.runtime import DistributedOptions, report_errors, silence_loggers, start_jax

if TYPE_CHECKING:  # Importing this asks jax for its devices.
    from rmgl_jax.evaluation.result import EvaluationResult


@dataclass(frozen=True)
class SweepOptions:
    """One sweep. What is under model, augment and so on is changed in all rows, before theirs."""

    experiment: Annotated[ExperimentConfig, tyro.conf.arg(name="")]
    """What the rows start from."""
    workdir: Path
    """Directory of the sweep: one directory a run, and the table. A sweep in it goes on."""
    preset: str = "paper"
    """Named configuration that the other options change; see the run card above."""
    seeds: int = 1
    """Runs of every row, with seeds from --train.seed on; their mean and spread are shown."""
    rows: tuple[str, ...] = ()
    """Names of the rows to run; all by default."""
    only_draw: bool = False
    """Runs nothing: shows what the runs that are there have given."""
    source: Path | None = None
    """Directory of the data set's files; needed once, to prepare it."""
    data_dir: Path | None = None
    """Where prepared data sets are kept (TFDS's own directory by default)."""
    allow_partial: bool = False
    """Accepts other image counts than the published ones."""
    weights: Path | None = None
    """ImageNet weights of the backbone (.safetensors, .pth); without, it starts from random."""


@dataclass(frozen=True)
class PlannedRun:
    """One row with one seed."""

    row: Row
    config: ExperimentConfig
    directory: Path

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.row.name}, seed {self.config.train.seed}"

    @property
    def result(self) -> Path:
        """The file that is there when it has finished."""
        return self.directory / "result.json"


def main(sweep: Sweep, description: str) -> None:
    """The command line of a table or figure.

    Args:
        sweep: its rows.
        description: the module's docstring, for `--help`.
    """
    options = parse(sweep, description, sys.argv[1:])
    console = Console()
    silence_loggers()
    with report_errors(console):
        start_jax(DistributedOptions())
        run_sweep(sweep, options, console)


def parse(sweep: Sweep, description: str, arguments: Sequence[str]) -> SweepOptions:
    """The options of a command line: a preset, changed by whatever else is given."""
    preset = single.chosen_preset(sweep.presets, arguments)
    chosen = tyro.cli(
        SweepOptions,
        prog=f"python -m experiments.{sweep.name}",
        default=SweepOptions(
            experiment=sweep.presets[preset], workdir=Path("runs") / sweep.name, preset=preset
        ),
        args=arguments,
        description=description,
    )
    if chosen.workdir == Path("runs") / sweep.name:
        name = f"{sweep.name}_{chosen.experiment.dataset.replace('/', '_')}_{preset}"
        chosen = replace(chosen, workdir=Path("runs") / name)
    return chosen


def run_sweep(
    sweep: Sweep,
    options: SweepOptions,
    console: Console,
    run_one: Callable[[RunOptions, PaperNumbers, Console], Any] = single.run,
) -> None:
    """Runs what is not done yet, seed by seed, and shows what has come out.

    Args:
        sweep: the rows.
        options: which of them, how often and where.
        console: where to print.
        run_one: trains and evaluates; it writes `config.json` and `result.json` into its work
            directory.

    Raises:
        ValueError: an option is wrong; the work directory holds runs of another configuration; or
            some rows failed, which are named after the others were run and shown.
    """
    from rmgl_jax.experiment.table import show

    selected = choose_rows(sweep, options.rows)
    plan, problems = make_plan(selected, options)
    for problem in problems:
        console.print(problem, highlight=False, markup=False)
    if not options.only_draw:
        check_plan(plan)
        problems += _run_all(plan, options, console, run_one)
    show(sweep, finished_runs(selected, options), options, console)
    if problems and not options.only_draw:
        raise ValueError(f"{len(problems)} without a result. {' '.join(problems)}")


def choose_rows(sweep: Sweep, names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, in the table's order; all if there are no names.

    Raises:
        ValueError: there is no such row.
    """
    known = [row.name for row in sweep.rows]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f"{sweep.name} has no row {', '.join(unknown)}; it has {', '.join(known)}."
        )
    return tuple(row for row in sweep.rows if not names or row.name in names)


def make_plan(rows: Sequence[Row], options: SweepOptions) -> tuple[list[PlannedRun], list[str]]:
    """All runs, seed by seed, so that a sweep that is stopped early has whole tables.

    Returns:
        The runs, and a sentence for each row that can't be made from this preset: four stripes of
        a map of six rows, say.
    """
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {options.seeds}.")
    base = replace(options.experiment, pretrained=single.fingerprint(options.weights))
    possible, problems = [], []
    for row in rows:
        try:
            row.change(base)
            possible.append(row)
        except ValueError as error:
            problems.append(f"{row.name} is not possible here: {error}")
    first = base.train.seed
    seeds = range(first, first + options.seeds)
    return [_plan(row, base, seed, options) for seed in seeds for row in possible], problems


def _plan(row: Row, base: ExperimentConfig, seed: int, options: SweepOptions) -> PlannedRun:
    config = row.change(base)
    config = replace(config, train=replace(config.train, seed=seed))
    return PlannedRun(row, config, options.workdir.expanduser() / row.name / f"seed{seed}")


def finished_runs(
    rows: Sequence[Row], options: SweepOptions
) -> "dict[Row, list[EvaluationResult]]":
    """What the finished runs of each row have given, whatever seeds they had.

    Raises:
        ValueError: one is of another configuration, or they started from different weights.
    """
    from rmgl_jax.evaluation.result import EvaluationResult
    from rmgl_jax.training.run_directory import read_config

    found: dict[Row, list[EvaluationResult]] = {row: [] for row in rows}
    started_from = {}
    for row in rows:
        directory = options.workdir.expanduser() / row.name
        seeds = (path.parent.name[4:] for path in directory.glob("seed*/result.json"))
        for seed in sorted(int(seed) for seed in seeds if seed.isdecimal()):
            planned = _plan(row, options.experiment, seed, options)
            check_plan([planned], drawing=True)
            started_from[read_config(planned.directory).pretrained] = planned.name
            try:
                text = planned.result.read_text()
                found[row].append(EvaluationResult.from_json(text))
            except ValueError as error:
                raise ValueError(f"{planned.result} is damaged: {error}") from error
    if len(started_from) > 1:
        each = ", ".join(f"{weights} ({name})" for weights, name in started_from.items())
        raise ValueError(f"The runs of one table started from different weights: {each}.")
    return found


def check_plan(plan: Sequence[PlannedRun], drawing: bool = False) -> None:
    """Refuses work directories that hold runs of other configurations.

    Args:
        plan: the runs.
        drawing: the weights that they started from need not be at hand.

    Raises:
        ValueError: naming the run and every field that differs.
    """
    for planned in plan:
        differing = list(_differences(planned, drawing))
        if differing:
            raise ValueError(
                f"{planned.directory} holds a run of another configuration: "
                f"{'; '.join(differing)}. Use another --workdir, or the old values."
            )


def _differences(planned: PlannedRun, drawing: bool) -> Iterator[str]:
    from rmgl_jax.training.run_directory import CONFIG_NAME, differences, read_config

    if not planned.result.exists() and not (planned.directory / CONFIG_NAME).exists():
        return
    stored, mine = read_config(planned.directory), planned.config
    # The number of identities comes from the data.
    mine = replace(mine, model=replace(mine.model, num_classes=stored.model.num_classes))
    if drawing:
        mine = replace(mine, pretrained=stored.pretrained)
    yield from differences(asdict(stored), asdict(mine))


def _run_all(
    plan: Sequence[PlannedRun],
    options: SweepOptions,
    console: Console,
    run_one: Callable[[RunOptions, PaperNumbers, Console], Any],
) -> list[str]:
    """Runs what has no result yet; a sentence for each that failed."""
    import jax

    problems: list[str] = []
    if plan and not all(planned.result.exists() for planned in plan):
        # Prepared and decoded once; what is wrong with the data is said once.
        single.load_splits(_settings(plan[0], options), plan[0].config)
    for number, planned in enumerate(plan, start=1):
        heading = f"[{number}/{len(plan)}] {planned.name}"
        if planned.result.exists():
            console.print(f"{heading}: done before", highlight=False, markup=False)
            continue
        console.rule(heading.replace("[", r"\["))
        try:
            run_one(_settings(planned, options), paper_of(planned), console)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            problems.append(f"{planned.name}: {type(error).__name__}: {error}")
            console.print(f"Failed: {problems[-1]}", highlight=False, markup=False)
        finally:
            # The next run has other programs; those of this one would only take memory.
            jax.clear_caches()
            gc.collect()
    return problems


def paper_of(planned: PlannedRun) -> PaperNumbers:
    """The row's published numbers of the data set that it runs on."""
    dataset = planned.config.dataset
    names = (dataset, dataset + RERANKED)
    return {name: planned.row.paper[name] for name in names if name in planned.row.paper}


def _settings(planned: PlannedRun, options: SweepOptions) -> RunOptions:
    return RunOptions(
        experiment=planned.config,
        workdir=str(planned.directory),
        preset=options.preset,
        source=options.source,
        data_dir=options.data_dir,
        allow_partial=options.allow_partial,
        weights=options.weights,
    )
