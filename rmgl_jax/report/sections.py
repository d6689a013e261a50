"""The sections of the page, in order. A new section is an entry here and its template."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rmgl_jax.evaluation.result import MEASURES
from rmgl_jax.models.partition import receptive_field
from rmgl_jax.report import curves
from rmgl_jax.report.balanced_stripes import balanced_stripes
from rmgl_jax.report.inspection import Inspection
from rmgl_jax.report.ranked_lists import ranked_lists
from rmgl_jax.report.receptive_regions import receptive_regions
from rmgl_jax.report.response_maps import overlay, responses
from rmgl_jax.report.result_table import RECORDED_MEASURES, result_cmc, result_rows
from rmgl_jax.report.run_card import changed_fields, run_card
from rmgl_jax.report.run_files import RunFiles
from rmgl_jax.report.shifting_samples import shifting_samples

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A section of the page."""

    id: str
    """Anchor in the page; the template is `templates/<id>.html.j2`."""
    title: str
    """Heading, and text of the link at the top."""
    data: Callable[[RunFiles, Inspection | None], Data | None]
    """Returns the variables of the template, or None to leave the section out. The second argument
    is None where images are not shown. Every template also has `run`, `seen`, and the `height` and
    `width` of pictures with their `scale`."""


def _result(run: RunFiles, seen: Inspection | None) -> Data:
    metrics = run.result.plain if run.result else seen.metrics if seen else None
    cmc = result_cmc(run, seen)
    return {
        "rows": result_rows(run, seen),
        "measures": MEASURES,
        "cmc": next(iter(cmc.values()), None),
        "cmc_svg": curves.cmc_curves(cmc) if cmc else None,
        "metrics": metrics,
        "ap_svg": curves.ap_histogram(metrics) if metrics else None,
    }


def _lists(run: RunFiles, seen: Inspection | None) -> Data | None:
    if seen is None:
        return None
    return {"lists": ranked_lists(seen.query, seen.gallery, seen.embeddings, seen.metrics.ap)}


def _stripes(run: RunFiles, seen: Inspection | None) -> Data | None:
    if seen is None:
        return None
    return {"stripes": balanced_stripes(run.config.model, seen.maps)}


def _responses(run: RunFiles, seen: Inspection | None) -> Data | None:
    if seen is None:
        return None
    return {
        "responses": {name: responses(maps) for name, maps in seen.maps.items()},
        "overlay": overlay,
        "folds": {
            path.map_name: len(path.seen)
            for path in receptive_regions(run.config.model)
            if path.folded
        },
    }


def _shifting(run: RunFiles, seen: Inspection | None) -> Data | None:
    if seen is None:
        return None
    shifting = run.config.augment.shifting
    shown = shifting.probability > 0
    samples = shifting_samples(seen.images, shifting, run.config.train.seed) if shown else []
    return {"shifting": shifting, "samples": samples}


def _regions(run: RunFiles, seen: Inspection | None) -> Data:
    model = run.config.model
    return {
        "regions": receptive_regions(model),
        "receptive_field": receptive_field(model),
        "image": None if seen is None else seen.images[-1],
        "image_height": model.image_size[0],
        "fold_at": model.fold_at,
    }


def _training(run: RunFiles, seen: Inspection | None) -> Data:
    steps = [record for record in run.records if record["kind"] == "train"]
    evaluations = [record for record in run.records if record["kind"] == "eval"]
    if not steps:
        return {"steps": [], "evaluations": []}
    return {
        "steps": steps,
        "evaluations": evaluations,
        "loss_svg": curves.training_curves(steps, ["loss", "cross_entropy", "triplet"], "loss"),
        "rate_svg": curves.training_curves(steps, ["learning_rate"], "learning rate", log=True),
        "accuracy_svg": curves.training_curves(steps, ["accuracy"], "accuracy"),
        "evaluation_svg": curves.evaluation_curves(evaluations, RECORDED_MEASURES)
        if evaluations
        else None,
    }


def _run(run: RunFiles, seen: Inspection | None) -> Data:
    return {"card": run_card(run), "changed": changed_fields(run.config)}


SECTIONS = (
    Section("result", "Result", _result),
    Section("lists", "Ranked lists", _lists),
    Section("stripes", "Balanced stripes", _stripes),
    Section("responses", "Response maps", _responses),
    Section("shifting", "Random shifting", _shifting),
    Section("regions", "Receptive regions", _regions),
    Section("training", "Training", _training),
    Section("run", "Run", _run),
)
