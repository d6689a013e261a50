"""The similarity of two images, and whether they show the same person."""

from dataclasses import dataclass
from pathlib import Path

from data_prep.files import expand
from rmgl_jax.evaluation.calibration import OperatingPoint
from rmgl_jax.export.model_file import TrainedModel
from rmgl_jax.gallery.crops import Crop, read_crop, shape_note
from rmgl_jax.gallery.embedder import Embedder


@dataclass(frozen=True)
class Decision:
    """Answer to "same person?" at a false positive rate."""

    fpr: float
    """Share of pairs of different persons that are taken for the same one."""
    threshold: float
    """Score above which two images are taken for the same person."""
    threshold_interval: tuple[float, float]
    """95 % confidence interval of the threshold."""
    same_person: bool
    """The score is above the threshold."""


@dataclass(frozen=True)
class Comparison:
    """Similarity of two images."""

    score: float
    """Cosine similarity of their embeddings, in [-1, 1]."""
    decisions: tuple[Decision, ...]
    """One for each false positive rate of the calibration; none without a calibration."""
    calibrated_on: str | None
    """Dataset of the calibration."""
    notes: tuple[str, ...]
    """Sentences about the images and the calibration."""


def compare(model: TrainedModel, first: Path, second: Path) -> Comparison:
    """Compares two images by the embedding that the model's thresholds hold for.

    Without a calibration it is the whole embedding, averaged with that of the mirrored image.

    Raises:
        MissingFileError: an image is not there.
        InputError: an image cannot be decoded.
    """
    calibration = model.calibration
    flip, dim = (True, None) if calibration is None else (calibration.flip, calibration.dim)
    embedder = Embedder(model, 2, flip, dim)
    paths = [expand(path) for path in (first, second)]
    images = [read_crop(Crop(path)) for path in paths]
    notes = [
        note
        for path, image in zip(paths, images, strict=True)
        if (note := shape_note(str(path), image))
    ]
    embeddings = embedder(images)
    # Rounding may exceed 1.
    score = min(max(float(embeddings[0] @ embeddings[1]), -1.0), 1.0)
    points: tuple[OperatingPoint, ...] = ()
    if calibration is None:
        notes.append("The model has no thresholds; `rmgl calibrate` measures them.")
    elif not calibration.applies_to(embedder.digest, flip):
        notes.append("The thresholds of the model are of another embedding; calibrate it again.")
    else:
        points = calibration.points
    decisions = [
        Decision(point.fpr, point.threshold, point.threshold_interval, score > point.threshold)
        for point in points
    ]
    dataset = calibration.dataset if calibration is not None and points else None
    return Comparison(score, tuple(decisions), dataset, tuple(notes))


def describe(result: Comparison) -> list[str]:
    """Describes a comparison, line by line."""
    lines = [f"score {result.score:.4f}"]
    for decision in result.decisions:
        low, high = decision.threshold_interval
        lines.append(
            f"same person at FPR {decision.fpr:g}: {'yes' if decision.same_person else 'no'} "
            f"(threshold {decision.threshold:.4f}, 95 % interval {low:.4f} to {high:.4f})"
        )
    if result.calibrated_on is not None:
        lines.append(
            f"The thresholds were measured on {result.calibrated_on} and do not carry over to "
            "other cameras."
        )
    return lines + list(result.notes)
