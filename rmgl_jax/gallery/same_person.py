"""The score above which a result of a gallery is called the same person."""

from data_prep.errors import InputError
from rmgl_jax.gallery.gallery import Gallery

DEFAULT_FPR = 1e-3
"""False positive rate of a search that names none."""


def same_person_threshold(gallery: Gallery, fpr: float | None = None) -> float | None:
    """Returns the threshold of a false positive rate, if the gallery's model is calibrated.

    Args:
        gallery: an open gallery.
        fpr: false positive rate; None is `DEFAULT_FPR` if that was measured.

    Returns:
        The threshold; None if `fpr` is None and there is none.

    Raises:
        InputError: there is no threshold for `fpr`.
    """
    calibration = gallery.model.calibration if gallery.has_model else None
    settings = gallery.settings
    if calibration is None or not calibration.applies_to(settings.digest, settings.flip):
        if fpr is None:
            return None
        raise InputError(
            f"The model has no threshold for the false positive rate {fpr:g} in this gallery; "
            "`rmgl calibrate` measures it, and --model gives the calibrated model."
        )
    try:
        return calibration.threshold(DEFAULT_FPR if fpr is None else fpr)
    except InputError:
        if fpr is None:
            return None
        raise
