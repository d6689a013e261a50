"""Ours, the paper's and the difference: from the results of a sweep to its tables."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats

from data_prep.files import write_text
from rmgl_jax.experiment.results import RERANKED, Row, Sweep

if TYPE_CHECKING:
    from rmgl_jax.evaluation.result import EvaluationResult
    from rmgl_jax.experiment.sweep import SweepOptions

OURS = ("rank-1", "mAP (step)", "mAP (official)")
SIGNIFICANT = 0.05
_TEST = (
    "Mean and standard deviation over the n seeds, in percent. A difference of two rows is called "
    f"significant where Welch's two-sided t-test gives p < {SIGNIFICANT:g}, each on its own: with "
    "many rows some come out so by chance. A row with one seed allows no claim. The spread is that "
    "of training; another test set would differ too."
)


@dataclass(frozen=True)
class Grid:
    """A table as text, whatever it is written as."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def show(
    sweep: Sweep,
    results: "Mapping[Row, Sequence[EvaluationResult]]",
    options: "SweepOptions",
    console: Console,
) -> None:
    """Prints the tables of a sweep, and writes them, and its figure if it is one.

    Nothing but the results is used: the runs need not be at hand otherwise.
    """
    if not any(results.values()):
        console.print("No run has finished yet: there is nothing to show.", highlight=False)
        return
    dataset = options.experiment.dataset
    grids = [paper_grid(sweep, results, dataset)]
    if differences := difference_grid(results):
        grids.append(differences)
    notes = notes_of(sweep, results, options)
    for grid in grids:
        console.print(_rich(grid))
    for note in notes:
        console.print(note, highlight=False, markup=False)
    path = options.workdir.expanduser() / f"{sweep.name}.md"
    if any(row.points for row in results):
        from rmgl_jax.experiment.figure import draw

        draw(sweep, results, dataset, path.with_suffix(".png"))
        console.print(f"Drawn to {path.with_suffix('.png')}", highlight=False, markup=False)
    parts = [f"# {sweep.title}", *notes, *map(_markdown, grids)]
    write_text(path, "\n\n".join(parts) + "\n")
    console.print(f"Written to {path}", highlight=False, markup=False)


def paper_grid(
    sweep: Sweep, results: "Mapping[Row, Sequence[EvaluationResult]]", dataset: str
) -> Grid:
    """Ours, the paper's and the difference, one line a row and ranking.

    The paper's columns are there only where it has numbers of this data set. It does not say which
    mAP is its; the difference is that to the step one.
    """
    lines = list(_lines(sweep, results, dataset))
    with_paper = any(paper for _, _, paper in lines)
    header = ["", "n", "rank-1"]
    header += ["rank-1 paper", "ours - paper"] if with_paper else []
    header += ["mAP (step)", "mAP (official)"]
    header += ["mAP paper", "ours - paper"] if with_paper else []
    rows = []
    for name, runs, paper in lines:
        ours = values(runs)
        row = [name, str(len(runs) or "–"), _spread(ours["rank-1"])]
        row += _beside(ours["rank-1"], paper.get("rank-1")) if with_paper else []
        row += [_spread(ours["mAP (step)"]), _spread(ours["mAP (official)"])]
        row += _beside(ours["mAP (step)"], paper.get("mAP")) if with_paper else []
        rows.append(tuple(row))
    return Grid(f"{sweep.title}: {dataset}", tuple(header), tuple(rows))


def _lines(
    sweep: Sweep, results: "Mapping[Row, Sequence[EvaluationResult]]", dataset: str
) -> Iterator[tuple[str, list[Mapping[str, float]], Mapping[str, float]]]:
    """Name, measures of each run and the paper's numbers: other methods' first, then ours."""
    for method, numbers in sweep.published.items():
        for suffix in ("", RERANKED):
            if dataset + suffix in numbers:
                yield f"{method}{suffix} (published)", [], numbers[dataset + suffix]
    for row, runs in results.items():
        yield row.name, [plain(run) for run in runs], row.paper.get(dataset, {})
        reranked = [run for run in runs if run.reranked is not None]
        paper = row.paper.get(dataset + RERANKED, {})
        if reranked or paper:
            yield row.name + RERANKED, [again(run) for run in reranked], paper


def plain(result: "EvaluationResult") -> Mapping[str, float]:
    """Measures in percent, not re-ranked."""
    from rmgl_jax.evaluation.result import measures

    return measures(result.plain)


def again(result: "EvaluationResult") -> Mapping[str, float]:
    """Measures in percent, re-ranked."""
    from rmgl_jax.evaluation.result import measures

    return measures(result.reranked.metrics)


def values(runs: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    """Each of `OURS` over the runs, `[n]`."""
    return {name: np.array([run[name] for run in runs]) for name in OURS}


def difference_grid(results: "Mapping[Row, Sequence[EvaluationResult]]") -> Grid | None:
    """Rows against those they are to be compared with, with a verdict."""
    by_name = {row.name: [plain(run) for run in runs] for row, runs in results.items()}
    measured = ("rank-1", "mAP (step)")
    rows = []
    for row in results:
        reference = by_name.get(row.against or "", [])
        if not by_name[row.name] or not reference:
            continue
        mine, other = values(by_name[row.name]), values(reference)
        cells = [_difference(mine[name], other[name]) for name in measured]
        rows.append((row.name, row.against or "", *cells))
    if not rows:
        return None
    return Grid("Differences between rows", ("", "less", *measured), tuple(rows))


def welch(mine: np.ndarray, other: np.ndarray) -> float | None:
    """The p of Welch's two-sided t-test; None where it can't be made.

    That is with fewer than two values on a side, or where neither side has any spread. Not paired:
    two configurations with one seed share little, since other parameters draw other numbers.
    """
    if min(len(mine), len(other)) < 2 or max(np.ptp(mine), np.ptp(other)) == 0:
        return None
    with warnings.catch_warnings():
        # One of the two may be without spread, which scipy remarks on.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_ind(mine, other, equal_var=False).pvalue)


def _difference(mine: np.ndarray, other: np.ndarray) -> str:
    change = f"{mine.mean() - other.mean():+.2f}"
    if min(len(mine), len(other)) < 2:
        return f"{change} (one seed: no claim)"
    p = welch(mine, other)
    if p is None:
        return f"{change} (no spread: no claim)"
    verdict = "significant" if p < SIGNIFICANT else "not significant"
    return f"{change} ({verdict}, p {p:.3f})" if p >= 0.001 else f"{change} ({verdict}, p < 0.001)"


def _spread(numbers: np.ndarray) -> str:
    if len(numbers) == 0:
        return "–"
    spread = f" ± {numbers.std(ddof=1):.2f}" if len(numbers) > 1 else ""
    return f"{numbers.mean():.2f}{spread}"


def _beside(numbers: np.ndarray, paper: float | None) -> list[str]:
    """The paper's number, and ours less it."""
    if paper is None:
        return ["–", "–"]
    return [f"{paper:.1f}", f"{numbers.mean() - paper:+.2f}" if len(numbers) else "–"]


def notes_of(
    sweep: Sweep,
    results: "Mapping[Row, Sequence[EvaluationResult]]",
    options: "SweepOptions",
) -> list[str]:
    """What a reader must know to read the table."""
    config = options.experiment
    size = "x".join(map(str, config.model.image_size))
    first = next(run for runs in results.values() for run in runs)
    notes = [
        f"{first.dataset} {first.version}, {first.n_query:,} queries, {first.n_gallery:,} gallery "
        f"images; preset {options.preset}: {size}, {config.train.epochs} epochs of batches of "
        f"{config.train.num_ids} x {config.train.num_instances}, stages of "
        f"{config.model.depth} blocks, "
        f"width {config.model.width}. The result is that of the last step.",
        _TEST,
    ]
    sets = sorted({key.removesuffix(RERANKED) for row in results for key in row.paper})
    if sets and config.dataset not in sets:
        notes.append(f"The paper has numbers of {', '.join(sets)} alone: none stand beside these.")
    elif sets:
        notes.append(
            "The paper does not say which mAP is its; the difference is to the step one. It gives "
            "no spread; its network is ResNet-50 with ImageNet's weights at 384x128."
        )
    lacking = [row.name for row, runs in results.items() if not runs]
    if lacking:
        notes.append(f"Not run: {', '.join(lacking)}.")
    left_out = [row.name for row in sweep.rows if row not in results]
    if left_out:
        notes.append(f"Not asked for: {', '.join(left_out)}.")
    return [*notes, sweep.note] if sweep.note else notes


def _rich(grid: Grid) -> Table:
    table = Table(
        title=Text(grid.title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for number, name in enumerate(grid.header):
        # Two lines, so that the column can be narrow.
        table.add_column(
            name.replace(" ", "\n", 1),
            justify="right" if number else "left",
            overflow="fold",
            no_wrap=bool(number) and len(grid.header) > 4,
        )
    for row in grid.rows:
        table.add_row(*row)
    return table


def _markdown(grid: Grid) -> str:
    lines = [grid.header, ("---",) * len(grid.header), *grid.rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
