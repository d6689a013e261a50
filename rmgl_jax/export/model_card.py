"""A model folder: the model file with a model card, as the Hugging Face hub shows it."""

import json
import os
from pathlib import Path

from data_prep.errors import InputError, WriteError
from data_prep.files import expand, write_text
from rmgl_jax import __version__
from rmgl_jax.config import ExperimentConfig, ModelConfig
from rmgl_jax.evaluation.result import MEASURES, EvaluationResult, measures
from rmgl_jax.export.hub import MODEL_NAME
from rmgl_jax.export.model_file import TrainedModel, save_model
from rmgl_jax.models.rmgl import feature_layout
from rmgl_jax.training.run_directory import CONFIG_NAME, config_to_json

CARD_NAME = "README.md"
"""Name of the model card, which the hub expects."""

_LIBRARY = "library_name: rmgl_jax"  # tells a model card from other files
_NO_REDISTRIBUTION = "Its images are for research and may not be redistributed."
# By the family of a dataset; the owners' terms are what counts.
_TERMS = {
    "market1501": _NO_REDISTRIBUTION,
    "msmt17": _NO_REDISTRIBUTION,
    "cuhk03_np": "Its images are for research.",
    "dukemtmc_reid": "Its owners withdrew it in 2019. Models trained on it should not be used.",
    "synthetic": "It is rendered: its images show no real people, and they have no license.",
    "folder": "Its images are not public. Who trained the model knows their terms.",
}


def save_model_folder(
    model: TrainedModel, directory: str | os.PathLike[str], result: EvaluationResult | None = None
) -> None:
    """Writes `model.safetensors` and a model card `README.md` into a directory.

    Args:
        model: the model, as `load_model` returns it.
        directory: made if it is absent; an earlier model and its card are replaced.
        result: evaluation to show; only if it is of these weights.

    Raises:
        InputError: `directory` is a run directory, or has a README that is no model card; or see
            `save_model`.
        WriteError: a file cannot be written.
    """
    directory = expand(directory)
    if (directory / CONFIG_NAME).exists():
        raise InputError(f"{directory} is a run directory; give another one for the model.")
    card = directory / CARD_NAME
    if card.is_file() and _LIBRARY not in card.read_text(errors="replace"):
        raise InputError(f"{card} is no model card; give another directory for the model.")
    save_model(model, directory / MODEL_NAME)
    try:
        write_text(card, model_card(model, result))
    except OSError as error:
        raise WriteError(f"{card} cannot be written: {error.strerror or error}.") from error


def read_result(run: Path) -> EvaluationResult | None:
    """Reads the result of a run directory; None if `run` is something else or has none yet.

    Raises:
        InputError: the result is damaged.
    """
    path = expand(run) / "result.json"
    if not path.is_file():
        return None
    try:
        return EvaluationResult.from_json(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def model_card(model: TrainedModel, result: EvaluationResult | None = None) -> str:
    """Describes a model in Markdown: results, training data, terms, intended use, limits.

    Args:
        model: the model.
        result: evaluation to show; a result of other weights is left out.
    """
    config = model.config
    return "\n".join(
        [
            "---",
            _LIBRARY,
            "pipeline_tag: image-feature-extraction",
            "tags:",
            "- person-re-identification",
            "- jax",
            "---",
            "",
            f"# RMGL trained on {model.trained_on}",
            "",
            "Embeddings of person crops for person re-identification, by receptive "
            "multi-granularity representation ([paper](https://arxiv.org/abs/2008.13450)). "
            f"Written by rmgl_jax {__version__}.",
            "",
            "## How to load it",
            "",
            "```python",
            "import rmgl_jax",
            "",
            'model = rmgl_jax.load_model("PATH")  # this directory, or its name on the hub',
            "embeddings = rmgl_jax.Embedder(model)(images)  # paths, Pillow images or arrays",
            "```",
            "",
            f"`{MODEL_NAME}` holds weights and settings, and no code. Its weights have the SHA-256 "
            f"digest `{model.digest}`.",
            "",
            "## Model",
            "",
            *_table(("", ""), _facts(model)),
            "",
            "## Results",
            "",
            *_results(model, result),
            "",
            "## Training data",
            "",
            f"{model.trained_on}. {_terms(config)}{_pretraining(config)}",
            "",
            "## Intended use",
            "",
            "Research on person re-identification, and search among crops of people who have "
            "agreed to it. Do not use the model to follow people without their consent, nor where "
            "the law forbids it. The terms of the training data may restrict the use of the "
            "weights; check them before you pass the weights on.",
            "",
            "## Limits",
            "",
            "- A ranked list is a guess, not evidence, and its errors are not spread evenly over "
            "people.",
            "- Accuracy falls on other cameras, places and seasons than those of the training "
            "data. A threshold for the same person does not carry over to other cameras.",
            "- Images are upright crops of one person each, as a detector gives them.",
            "- The model compares clothes and build more than faces: the same person in other "
            "clothes is often missed.",
            "",
            "## Configuration",
            "",
            "```json",
            json.dumps(config_to_json(config)["model"], indent=1),
            "```",
            "",
        ]
    )


def _facts(model: TrainedModel) -> list[tuple[str, ...]]:
    config: ModelConfig = model.config.model
    height, width = config.image_size
    features = len(feature_layout(config))
    return [
        ("image size", f"{height}x{width}"),
        ("embedding", f"{features} features of {config.embed_dim}: {features * config.embed_dim}"),
        ("granularities", ", ".join(map(str, config.granularities))),
        ("paths", ", ".join(config.paths)),
        ("training steps", f"{model.step:,}"),
    ]


def _results(model: TrainedModel, result: EvaluationResult | None) -> list[str]:
    if result is None:
        return ["No evaluation is recorded with this model."]
    if result.digest not in (None, model.digest) or result.step not in (None, str(model.step)):
        return [f"The recorded evaluation is of other weights (step {result.step})."]
    rankings = {"not re-ranked": result.plain}
    if result.reranked is not None:
        rankings["re-ranked"] = result.reranked.metrics
    if result.expanded is not None:
        rankings["queries expanded"] = result.expanded.metrics
    rows = [
        (name, *(f"{value:.2f}" for value in measures(metrics).values()))
        for name, metrics in rankings.items()
    ]
    return [
        f"On {result.dataset} {result.version}: {result.n_query:,} queries of {result.n_ids:,} "
        f"identities, {result.n_gallery:,} gallery images; "
        f"{'averaged with mirrored images' if result.flipped else 'not mirrored'}. In percent:",
        "",
        *_table(("", *MEASURES), rows),
    ]


def _terms(config: ExperimentConfig) -> str:
    return _TERMS.get(config.dataset.partition("/")[0], "Read the terms of its owners.")


def _pretraining(config: ExperimentConfig) -> str:
    if config.pretrained == "none":
        return " Training began with random weights."
    return f" Training began with the weights {config.pretrained}."


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    lines = [header, ("---",) * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
