from data_prep.preparing import prepare_dataset as prepare_dataset
from rmgl_jax.config import AugmentConfig as AugmentConfig
from rmgl_jax.config import EvalConfig as EvalConfig
from rmgl_jax.config import ExperimentConfig as ExperimentConfig
from rmgl_jax.config import LossConfig as LossConfig
from rmgl_jax.config import ModelConfig as ModelConfig
from rmgl_jax.config import OptimizerConfig as OptimizerConfig
from rmgl_jax.config import TrainConfig as TrainConfig
from rmgl_jax.evaluation.ranking import RankMetrics as RankMetrics
from rmgl_jax.evaluation.ranking import rank_metrics as rank_metrics
from rmgl_jax.evaluation.reranking import rerank as rerank
from rmgl_jax.evaluation.result import EvaluationResult as EvaluationResult
from rmgl_jax.experiment.evaluate import evaluate as evaluate
from rmgl_jax.experiment.presets import presets_for as presets_for
from rmgl_jax.experiment.run import train as train
from rmgl_jax.export.model_file import TrainedModel as TrainedModel
from rmgl_jax.export.model_file import load_model as load_model
from rmgl_jax.export.model_file import save_model as save_model
from rmgl_jax.gallery.crops import Crop as Crop
from rmgl_jax.gallery.crops import find_crops as find_crops
from rmgl_jax.gallery.embedder import Embedder as Embedder
from rmgl_jax.gallery.gallery import Gallery as Gallery
from rmgl_jax.models.rmgl import RMGL as RMGL

__version__: str
