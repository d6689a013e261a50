"""One self-contained page of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console

from data_prep.files import write_text
from rmgl_jax import __version__
from rmgl_jax.config import ExperimentConfig
from rmgl_jax.evaluation.result import MEASURES, EvaluationResult, measures
from rmgl_jax.models.partition import receptive_field
from rmgl_jax.report import curves
from rmgl_jax.report.inspection import Inspection, inspect_run
from rmgl_jax.report.pictures import data_uri, thumbnail
from rmgl_jax.report.receptive_regions import receptive_regions
from rmgl_jax.report.response_maps import overlay
from rmgl_jax.report.run_card import changed_fields, run_card
from rmgl_jax.training.logger import LOG_NAME, read_metrics
from rmgl_jax.training.run_directory import read_config

REPORT_NAME = "report.html"
RESULT_NAME = "result.json"
# Pixels: the height of a picture that is looked at closely.
_HEIGHT = 224
# What an evaluation on the way records, by the name a result gives it.
_RECORDED = {
    "rank-1": "rank-1",
    "mAP (step)": "mean_ap",
    "mAP (official)": "mean_ap_official",
    "mINP": "mean_inp",
}


@dataclass(frozen=True)
class Row:
    """A line of the result table."""

    name: str
    values: Mapping[str, float]
    """In percent, by the names of `MEASURES`; what was not measured is left out."""


def write_report(
    workdir: Path,
    *,
    data_dir: Path | None = None,
    output: Path | None = None,
    figures: bool = False,
    console: Console | None = None,
) -> Path:
    """Writes the page of a run, completely or not at all.

    Rendered data sets are shown always: nobody is in them. Photographs only with `figures`.

    Args:
        workdir: of the run, finished or not.
        data_dir: where prepared data sets are kept; needed for pictures only.
        output: the file; `report.html` in the work directory by default.
        figures: shows pictures of real data too.
        console: shows progress on it.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is no run, nothing of it yet, or its data set is not prepared.
        ValueError: a file of the run is damaged; see also `inspect_run`.
    """
    config = read_config(workdir)
    records = read_metrics(workdir)
    result = _read_result(workdir)
    if not records and result is None:
        raise FileNotFoundError(
            f"{workdir} has nothing to report yet: neither {LOG_NAME} nor {RESULT_NAME}."
        )
    rendered = config.dataset.partition("/")[0] == "synthetic"
    seen = None
    if (figures or rendered) and _has_checkpoint(workdir):
        step = None if result is None or result.step is None else int(result.step)
        dataset = config.dataset if result is None else result.dataset
        seen = inspect_run(workdir, dataset, step, data_dir, console)
    html = render(workdir, config, records, result, seen, rendered)
    path = output or workdir / REPORT_NAME
    write_text(path, html)
    return path


def render(
    workdir: Path,
    config: ExperimentConfig,
    records: Sequence[Mapping[str, Any]],
    result: EvaluationResult | None,
    seen: Inspection | None,
    rendered: bool,
) -> str:
    """The page, as HTML.

    Args:
        workdir: of the run.
        config: of the run.
        records: its `metrics.jsonl`.
        result: its result, if it has one.
        seen: what the pictures are made of; None leaves them out.
        rendered: whether nobody is in the pictures.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rmgl_jax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data_uri": data_uri, "thumbnail": thumbnail}
    image_height, image_width = config.model.image_size
    ranked = result.plain if result is not None else seen.metrics if seen is not None else None
    return environment.get_template("page.html.j2").render(
        config=config,
        records=records,
        result=result,
        seen=seen,
        rendered=rendered,
        has_checkpoint=_has_checkpoint(workdir),
        measures=MEASURES,
        rows=_rows(records, result, seen),
        card=run_card(workdir, config, records, result),
        changed=changed_fields(config),
        curves=curves,
        overlay=overlay,
        cmc=_cmc(result, seen),
        ranked=ranked,
        regions=receptive_regions(config.model),
        field=receptive_field(config.model),
        height=_HEIGHT,
        width=round(image_width * _HEIGHT / image_height),
        scale=_HEIGHT / image_height,
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _rows(
    records: Sequence[Mapping[str, Any]], result: EvaluationResult | None, seen: Inspection | None
) -> list[Row]:
    if result is not None:
        rows = [Row("not re-ranked", measures(result.plain))]
        if result.reranked is not None:
            rows.append(Row("re-ranked", measures(result.reranked.metrics)))
        if result.expanded is not None:
            rows.append(Row("queries expanded", measures(result.expanded.metrics)))
        return rows
    if seen is not None:
        name = f"measured for this page, step {seen.trained.step}"
        return [Row(name, measures(seen.metrics))]
    evaluations = [record for record in records if record["kind"] == "eval"]
    return [
        Row(
            f"evaluation on the way, step {record['step']}",
            {name: 100 * float(record[key]) for name, key in _RECORDED.items() if key in record},
        )
        for record in evaluations[-1:]
    ]


def _cmc(result: EvaluationResult | None, seen: Inspection | None) -> dict[str, Any]:
    if result is None:
        return {} if seen is None else {"not re-ranked": seen.metrics.cmc}
    found = {"not re-ranked": result.plain.cmc}
    if result.reranked is not None:
        found["re-ranked"] = result.reranked.metrics.cmc
    if result.expanded is not None:
        found["queries expanded"] = result.expanded.metrics.cmc
    return found


def _read_result(workdir: Path) -> EvaluationResult | None:
    path = workdir / RESULT_NAME
    if not path.exists():
        return None
    try:
        return EvaluationResult.from_json(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _has_checkpoint(workdir: Path) -> bool:
    directory = workdir / "checkpoints"
    return directory.is_dir() and any(child.name.isdigit() for child in directory.iterdir())
