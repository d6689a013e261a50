"""Table IV as one matrix: a row per source of training, a column per dataset of evaluation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from rmgl_jax.evaluation.result import EvaluationResult, measures
from rmgl_jax.experiment.results import PairNumbers
from rmgl_jax.experiment.table import Grid

T = TypeVar("T")

OPEN = "open"
"""Cell of a pair of datasets that was not measured."""
NONE = "–"
"""Cell of a pair for which a method has no published numbers."""
_SHOWN = ("rank-1", "mAP (step)", "mAP (official)")


def family(name: str) -> str:
    """Name of a dataset without its variant."""
    return name.partition("/")[0]


def is_own(name: str, trained_on: str) -> bool:
    """True if the test images belong to the dataset of training, in any of its variants."""
    return name == trained_on or (
        family(name) in ("cuhk03_np", "msmt17") and family(name) == family(trained_on)
    )


def matrix(results: Sequence[EvaluationResult], published: Mapping[str, PairNumbers]) -> Grid:
    """Arranges results of several sources as a matrix, with published numbers.

    Args:
        results: of one or several models on any datasets, each with `trained_on`.
        published: numbers by method, dataset of training, dataset of evaluation and measure. Their
            sources and targets have a row and a column each, measured or not.
    """
    targets = _targets(results, published)
    rows = []
    for source in _sources(results, published):
        for method, cells in _methods(source, results, published, targets):
            rows.append((source, method, *(cells[target] for target in targets)))
    title = (
        "Trained on (rows), tested on (columns), in percent. Ours: rank-1 / mAP (step) / mAP "
        "(official), in brackets on the test images of its own dataset. Published: rank-1 / mAP."
    )
    return Grid(title, ("trained on", "method", *targets), tuple(rows))


def _targets(
    results: Sequence[EvaluationResult], published: Mapping[str, PairNumbers]
) -> list[str]:
    """Datasets of evaluation: those with published numbers, then the others."""
    measured = _unique(result.dataset for result in results)
    pairs = (by_source for pair_numbers in published.values() for by_source in pair_numbers.items())
    names = _unique(target for _, by_target in pairs for target in by_target)
    names = [source for source in _published_sources(published) if source in names]
    columns = []
    for name in names:
        columns += [dataset for dataset in measured if family(dataset) == name] or [name]
    return _unique([*columns, *measured])


def _published_sources(published: Mapping[str, PairNumbers]) -> list[str]:
    return _unique(source for pair_numbers in published.values() for source in pair_numbers)


def _sources(
    results: Sequence[EvaluationResult], published: Mapping[str, PairNumbers]
) -> list[str]:
    """Datasets of training: those with published numbers, then the others."""
    trained_on = _unique(str(result.trained_on) for result in results)
    sources = []
    for name in _published_sources(published):
        sources += [source for source in trained_on if family(source) == name] or [name]
    return _unique([*sources, *trained_on])


def _methods(
    source: str,
    results: Sequence[EvaluationResult],
    published: Mapping[str, PairNumbers],
    targets: Sequence[str],
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the rows of one source: name of the method, and its cell for each target."""
    mine = [result for result in results if result.trained_on == source]
    models = _unique((result.checkpoint, result.step) for result in mine)
    if not models:
        yield "ours", dict.fromkeys(targets, OPEN)
    for checkpoint, step in models:
        of_model = {
            result.dataset: result
            for result in mine
            if (result.checkpoint, result.step) == (checkpoint, step)
        }
        name = f"ours: {checkpoint}, step {step}" if checkpoint else "ours"
        yield name, {target: _cell(of_model.get(target), source) for target in targets}
        if any(result.reranked for result in of_model.values()):
            yield (
                f"{name}, re-ranked",
                {target: _cell(of_model.get(target), source, True) for target in targets},
            )
    for method, pair_numbers in published.items():
        by_target = pair_numbers.get(family(source))
        if by_target:
            yield method, {target: _published_cell(by_target, target) for target in targets}


def _cell(result: EvaluationResult | None, source: str, reranked: bool = False) -> str:
    if result is None or (reranked and result.reranked is None):
        return OPEN
    metrics = result.reranked.metrics if reranked and result.reranked else result.plain
    text = " / ".join(f"{measures(metrics)[name]:.1f}" for name in _SHOWN)
    return f"({text})" if is_own(result.dataset, source) else text


def _published_cell(by_target: Mapping[str, Mapping[str, float]], target: str) -> str:
    found = by_target.get(family(target))
    return f"{found['rank-1']:.1f} / {found['mAP']:.1f}" if found else NONE


def _unique(items: Iterable[T]) -> list[T]:
    return list(dict.fromkeys(items))
