"""Tables of a sweep, as grids of text that are printed with rich and written as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from rmgl_jax.experiment.results import (
    RERANKED,
    Results,
    Sweep,
    collect,
    plain_measures,
    reranked_measures,
    spread,
    welch_test,
)

SIGNIFICANT = 0.05
"""Differences with a smaller p value are called significant."""
COMPARED = ("rank-1", "mAP (step)")
"""Measures by which rows are compared with their baselines."""
_NAME_WIDTH = 21
"""Characters of the names of rows in a line; the terminal may be narrow. Longer ones are folded."""


@dataclass(frozen=True)
class Grid:
    """A table as text."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def paper_grid(sweep: Sweep, results: Results, dataset: str) -> Grid:
    """Our numbers, the paper's, and the difference: one line per row and ranking.

    Columns of the paper appear only if it has numbers of this dataset. It does not say which mAP
    it reports; the difference is taken to the step definition.
    """
    lines = list(_lines(sweep, results, dataset))
    with_paper = any(paper for _, _, paper in lines)
    header = ["", "n", "rank-1"]
    header += ["rank-1 paper", "ours - paper"] if with_paper else []
    header += ["mAP (step)", "mAP (official)"]
    header += ["mAP paper", "ours - paper"] if with_paper else []
    rows = []
    for name, runs, paper in lines:
        ours = collect(runs)
        row = [name, str(len(runs) or "–"), _mean_and_spread(ours["rank-1"])]
        row += _paper_cells(ours["rank-1"], paper.get("rank-1")) if with_paper else []
        row += [_mean_and_spread(ours["mAP (step)"]), _mean_and_spread(ours["mAP (official)"])]
        row += _paper_cells(ours["mAP (step)"], paper.get("mAP")) if with_paper else []
        rows.append(tuple(row))
    return Grid(f"{sweep.title}: {dataset}", tuple(header), tuple(rows))


def _lines(
    sweep: Sweep, results: Results, dataset: str
) -> Iterator[tuple[str, list[dict[str, float]], Mapping[str, float]]]:
    """Yields name, measures of each run and the paper's numbers; other methods come first."""
    for method, published in sweep.published.items():
        for suffix in ("", RERANKED):
            if dataset + suffix in published:
                yield f"{method}{suffix} (published)", [], published[dataset + suffix]
    for row, runs in results.items():
        yield row.name, plain_measures(runs), row.paper.get(dataset, {})
        reranked = reranked_measures(runs)
        paper = row.paper.get(dataset + RERANKED, {})
        if reranked or paper:
            yield row.name + RERANKED, reranked, paper


def difference_grid(results: Results) -> Grid | None:
    """Differences between rows and their baselines, with a verdict; None if there are none."""
    by_name = {row.name: plain_measures(runs) for row, runs in results.items()}
    rows = []
    pairs = [(row, baseline) for row in results for baseline in (row.baseline, row.control)]
    for row, baseline in pairs:
        if baseline is None or not by_name[row.name] or not by_name.get(baseline):
            continue
        mine, other = collect(by_name[row.name]), collect(by_name[baseline])
        cells = [_difference(mine[name], other[name]) for name in COMPARED]
        rows.append((row.name, baseline, *cells))
    if not rows:
        return None
    return Grid("Differences between rows", ("", "baseline", *COMPARED), tuple(rows))


def _difference(mine: np.ndarray, other: np.ndarray) -> str:
    change = f"{mine.mean() - other.mean():+.2f}"
    if min(len(mine), len(other)) < 2:
        return f"{change} (one seed: no claim)"
    p = welch_test(mine, other)
    if p is None:
        return f"{change} (no spread: no claim)"
    verdict = "significant" if p < SIGNIFICANT else "not significant"
    return f"{change} ({verdict}, p {p:.3f})" if p >= 0.001 else f"{change} ({verdict}, p < 0.001)"


def _mean_and_spread(values: np.ndarray) -> str:
    if len(values) == 0:
        return "–"
    deviation = f" ± {spread(values):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{deviation}"


def _paper_cells(ours: np.ndarray, paper: float | None) -> list[str]:
    """The paper's number and the difference of our mean to it."""
    if paper is None:
        return ["–", "–"]
    return [f"{paper:.1f}", f"{ours.mean() - paper:+.2f}" if len(ours) else "–"]


def to_rich(grid: Grid) -> Table:
    """A grid as a rich table."""
    table = Table(title=Text(grid.title), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    # On a narrow terminal numbers and their spread take two lines, and names stay readable.
    widest_name = max((len(row[0]) for row in grid.rows), default=0)
    for number, name in enumerate(grid.header):
        # Two lines, so that the column can be narrow.
        table.add_column(
            name.replace(" ", "\n", 1),
            justify="right" if number else "left",
            overflow="fold",
            width=None if number else min(widest_name, _NAME_WIDTH),
        )
    for row in grid.rows:
        table.add_row(*row)
    return table


def to_markdown(grid: Grid) -> str:
    """A grid as a Markdown table, without its title."""
    lines: Sequence[tuple[str, ...]] = [grid.header, ("---",) * len(grid.header), *grid.rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
