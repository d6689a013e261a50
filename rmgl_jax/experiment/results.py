"""What the tables and figures are made of: rows of configurations and the paper's numbers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rmgl_jax.config import ExperimentConfig
from rmgl_jax.evaluation.result import PaperNumbers

RERANKED = " re-ranked"
"""After a data set's name: what was measured after re-ranking."""


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a table, or one point of a figure."""

    name: str
    """Also the name of its directory."""
    change: Callable[[ExperimentConfig], ExperimentConfig]
    """From the configuration that all rows start from to this row's."""
    paper: PaperNumbers = field(default_factory=dict)
    """Published numbers in percent, by data set (with " re-ranked" after it) and measure."""
    against: str | None = None
    """Name of the row that this one is compared with."""
    points: Mapping[str, float | str] = field(default_factory=dict)
    """In a figure: the lines it is a point of, and where on the horizontal axis."""


def numbers(by_dataset: Mapping[str, tuple[float, float]]) -> PaperNumbers:
    """Pairs of mAP and rank-1, as the paper prints them, by data set."""
    return {name: {"mAP": pair[0], "rank-1": pair[1]} for name, pair in by_dataset.items()}


@dataclass(frozen=True)
class Sweep:
    """What is run and how it is shown."""

    name: str
    """Of the module; also that of the files that are written."""
    title: str
    """What it is, in one line."""
    presets: Mapping[str, ExperimentConfig]
    """Configurations that the rows change, by name; the first is the default."""
    rows: tuple[Row, ...]
    published: Mapping[str, PaperNumbers] = field(default_factory=dict)
    """Numbers of other methods as the paper has them, by method."""
    x_label: str = ""
    """What is on a figure's horizontal axis."""
    note: str = ""
    """What a reader of the result should know."""

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name} has rows of the same name: {', '.join(names)}.")
        unknown = {row.against for row in self.rows} - {None, *names}
        if unknown:
            raise ValueError(f"{self.name} compares with rows it has not: {unknown}.")
