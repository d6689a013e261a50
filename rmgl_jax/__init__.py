"""RMGL: receptive multi-granularity representation for person re-identification, in JAX.

The public API is flat: `rmgl_jax.train`, `rmgl_jax.load_model`, `rmgl_jax.Embedder` and so on.
Names are imported on first use, so that `import rmgl_jax` takes milliseconds.

Shape legend, used in every docstring:

====  ==================================================================
B     images in a batch
H W   height and width of an image or map (layout is NHWC everywhere)
C     channels
S     stripes of a path
N     part features of the model (globals and stripes of every branch and path)
D     width of a part feature (256)
P K   identities in a batch, images of each
Q G   queries, gallery images
M     images of a split
E     width of the embedding (N * D)
====  ==================================================================
"""

import importlib
from typing import Any

__version__ = "0.2.0"

# The stub `__init__.pyi` has the same names, for type checkers and editors.
_MODULE_OF = {
    "AugmentConfig": "rmgl_jax.config",
    "EvalConfig": "rmgl_jax.config",
    "ExperimentConfig": "rmgl_jax.config",
    "LossConfig": "rmgl_jax.config",
    "ModelConfig": "rmgl_jax.config",
    "OptimizerConfig": "rmgl_jax.config",
    "TrainConfig": "rmgl_jax.config",
    "RMGL": "rmgl_jax.models.rmgl",
    "Crop": "rmgl_jax.gallery.crops",
    "Embedder": "rmgl_jax.gallery.embedder",
    "EvaluationResult": "rmgl_jax.evaluation.result",
    "FlatIndex": "rmgl_jax.evaluation.retrieval",
    "Gallery": "rmgl_jax.gallery.gallery",
    "RankMetrics": "rmgl_jax.evaluation.ranking",
    "TrainedModel": "rmgl_jax.export.model_file",
    "evaluate": "rmgl_jax.experiment.evaluate",
    "export_onnx": "rmgl_jax.export.files",
    "export_stablehlo": "rmgl_jax.export.files",
    "find_crops": "rmgl_jax.gallery.crop_sources",
    "load_model": "rmgl_jax.export.model_file",
    "prepare_dataset": "data_prep.preparing",
    "presets_for": "rmgl_jax.experiment.presets",
    "rank_metrics": "rmgl_jax.evaluation.ranking",
    "rerank": "rmgl_jax.evaluation.reranking",
    "save_model": "rmgl_jax.export.model_file",
    "save_model_folder": "rmgl_jax.export.model_card",
    "train": "rmgl_jax.experiment.run",
}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # Later uses find it without this function.
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
