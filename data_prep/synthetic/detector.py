"""Boxes of a simulated person detector: mostly fair, some too large, cut or shifted."""

import numpy as np

from data_prep.synthetic.camera import Box


def tight_box(points: np.ndarray) -> Box:
    """Computes the smallest box around points [..., 2] of the picture plane."""
    low, high = (
        points.reshape(-1, points.shape[-1]).min(0),
        points.reshape(-1, points.shape[-1]).max(0),
    )
    return Box(float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


def detect(tight: Box, rng: np.random.Generator) -> Box:
    """Draws the detected box of a person whose smallest box is `tight`."""
    kind = rng.choice(["fair", "large", "feet", "head", "beside"], p=[0.52, 0.16, 0.15, 0.07, 0.1])
    top, bottom = rng.uniform(-0.02, 0.07, 2)  # margins, as shares of the person's height
    aspect, aside = rng.uniform(0.36, 0.48), rng.normal(0, 0.03)
    if kind == "large":
        top, bottom = rng.uniform(0.05, 0.35), rng.uniform(0.05, 0.3)
    elif kind == "feet":
        bottom = -rng.uniform(0.15, 0.42)
    elif kind == "head":
        top = -rng.uniform(0.08, 0.22)
    elif kind == "beside":
        aside = rng.choice([-1, 1]) * rng.uniform(0.08, 0.2)
    return _box(tight, top, bottom, aspect, aside)


def detect_junk(tight: Box, rng: np.random.Generator) -> Box:
    """Draws a box that overlaps its person too little to count: a part, or far too large."""
    if rng.random() < 0.6:
        cut = rng.uniform(0.45, 0.65)
        top, bottom = (-cut, 0.05) if rng.random() < 0.5 else (0.05, -cut)
        return _box(tight, top, bottom, rng.uniform(0.4, 0.6), rng.normal(0, 0.1))
    return _box(tight, rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7), 0.5, rng.normal(0, 0.15))


def _box(tight: Box, top: float, bottom: float, aspect: float, aside: float) -> Box:
    height = tight.height * (1 + top + bottom)
    width = height * aspect
    center = tight.left + tight.width / 2 + aside * tight.height
    return Box(center - width / 2, tight.bottom - bottom * tight.height, width, height)
