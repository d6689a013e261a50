"""Retrieval by raw pixels and by color histograms, as baselines.

A trained network that is hardly better has learned little, and a dataset on which baselines do well
cannot tell methods apart.
"""

import cv2
import numpy as np
import numpy.typing as npt

from rmgl_jax.data.pixels import Images


def pixel_embedding(
    images: Images, size: tuple[int, int] = (32, 16), center: float = 0.5
) -> npt.NDArray[np.float32]:
    """Embeds images as their downscaled pixels, minus the mean, at unit length.

    Args:
        images: uint8 [M, H, W, 3], RGB.
        size: height and width of the downscaled images.
        center: share of the width that is used. Persons are in the middle, and the background
            gives away the camera.

    Returns:
        float32 [M, E] with rows of unit length, E = 3 * height * width.

    Raises:
        TypeError: `images` is not uint8.
        ValueError: `images` is not [M, H, W, 3], or `center` is not in (0, 1].
    """
    images = _center(images, center)
    height, width = size
    features = np.empty((len(images), height * width * 3), np.float32)
    for feature, image in zip(features, images, strict=True):
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        # Without their mean, images are compared by pattern rather than brightness.
        feature[:] = small.astype(np.float32).ravel() - small.mean()
    return _unit_length(features)


def color_histogram_embedding(
    images: Images,
    stripes: int = 6,
    bins: tuple[int, int, int] = (12, 4, 4),
    center: float = 0.5,
) -> npt.NDArray[np.float32]:
    """Embeds images as histograms of hue, saturation and value in horizontal stripes.

    An embedding holds the square roots of the frequencies, so that Euclidean distances of
    embeddings are Hellinger distances of histograms.

    Args:
        images: uint8 [M, H, W, 3], RGB.
        stripes: number of stripes, from top to bottom.
        bins: number of bins of hue, saturation and value.
        center: share of the width that is used.

    Returns:
        float32 [M, E] with rows of unit length, E = stripes * product of bins.

    Raises:
        TypeError: `images` is not uint8.
        ValueError: `images` is not [M, H, W, 3] or has fewer rows than `stripes`, or `center` is
            not in (0, 1].
    """
    images = _center(images, center)
    if images.shape[1] < stripes:
        raise ValueError(f"images have {images.shape[1]} rows, too few for {stripes} stripes.")
    count = int(np.prod(bins))
    features = np.empty((len(images), stripes, count), np.float32)
    for feature, image in zip(features, images, strict=True):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        for stripe, part in zip(feature, np.array_split(hsv, stripes), strict=True):
            # OpenCV's hue runs from 0 to 179.
            histogram = cv2.calcHist([part], [0, 1, 2], None, bins, [0, 180, 0, 256, 0, 256])
            stripe[:] = histogram.ravel() / (part.shape[0] * part.shape[1])
    return _unit_length(np.sqrt(features.reshape(len(images), stripes * count)))


def _center(images: Images, share: float) -> npt.NDArray[np.uint8]:
    """Checks images and returns their middle columns, at least one."""
    if images.dtype != np.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}.")
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"images must have the shape [M, H, W, 3], got {images.shape}.")
    if not 0 < share <= 1:
        raise ValueError(f"center must be in (0, 1], got {share}.")
    columns = images.shape[2]
    margin = min(round((1 - share) / 2 * columns), (columns - 1) // 2)
    return np.ascontiguousarray(images[:, :, margin : columns - margin])


def _unit_length(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    # The row of an image of one color is zero and stays zero.
    return features / np.maximum(norms, np.finfo(np.float32).tiny)
