"""Draws the pictures of the method, from the code itself, into docs/images.

    python docs/pictures.py RUN --data-dir DIR

RUN is the run of `make demo` (runs/demo) and DIR its data (runs/data): all persons are rendered.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from rmgl_jax.config import FoldPosition, ModelConfig, RandomShiftingConfig
from rmgl_jax.models.partition import receptive_field
from rmgl_jax.models.rmgl import feature_layout
from rmgl_jax.report.balanced_stripes import balanced_stripes
from rmgl_jax.report.inspection import Inspection, inspect_run
from rmgl_jax.report.receptive_regions import image_rows
from rmgl_jax.report.response_maps import overlay, responses
from rmgl_jax.report.shifting_samples import shifting_samples

IMAGES = Path(__file__).parent / "images"
COLORS = ("#0072b2", "#e69f00", "#009e73")  # told apart by color-blind readers too
STRIPES = 3


def main() -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dataset", default="synthetic/demo")
    arguments = parser.parse_args()
    found = inspect_run(arguments.run, arguments.dataset, data_dir=arguments.data_dir)
    paper = ModelConfig()
    save(draw_partitions(paper, found.images[-1]), "partitions.png")
    save(draw_branches(paper), "branches.svg")
    save(draw_balanced(found), "balanced_pooling.png")
    save(draw_shifting(found.images), "random_shifting.png")


def save(figure: Figure, name: str) -> None:
    """Writes a figure with a white background, which dark pages need too."""
    # Without a date and with fixed ids, so that the file changes only with the picture.
    matplotlib.rcParams["svg.hashsalt"] = "rmgl_jax"
    metadata = {"Date": None} if name.endswith(".svg") else {}
    figure.savefig(
        IMAGES / name, facecolor="white", bbox_inches="tight", dpi=110, metadata=metadata
    )


def draw_partitions(config: ModelConfig, pixels: np.ndarray) -> Figure:
    """Image rows that each of three stripes sees, by the depth at which the map is cut."""
    height, width = config.image_size
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    cuts: list[tuple[str, FoldPosition]] = [
        ("input partition", "input"),
        ("receptive partition", "res2"),
        ("receptive partition", "res3"),
        ("receptive partition", "res4"),
        ("output partition", config.last_stage),
    ]
    figure = Figure(figsize=(11, 5))
    for axes, (title, stage) in zip(figure.subplots(1, len(cuts)), cuts, strict=True):
        axes.imshow(image)
        rows = config.map_height(stage) // STRIPES
        for stripe, color in enumerate(COLORS):
            seen = image_rows(config, stage, stripe * rows, (stripe + 1) * rows)
            top, bottom = max(seen[0], 0), min(seen[1], height)
            left = width + 12 + 26 * stripe
            axes.add_patch(Rectangle((left, top), 18, bottom - top, color=color, clip_on=False))
            own = (stripe * height / STRIPES, height / STRIPES)
            axes.add_patch(
                Rectangle((1, own[0] + 1), width - 3, own[1] - 3, fill=False, ec=color, lw=2)
            )
        field = receptive_field(config, stop=stage)
        cut = {"input": "cut before the network"}.get(stage, f"cut after {stage}")
        axes.set_title(f"{title}\n{cut}\nreceptive field {field}", fontsize=9)
        axes.set_xlim(-0.5, width + 12 + 26 * STRIPES)
        axes.axis("off")
    return figure


def draw_branches(config: ModelConfig) -> Figure:
    """The branches, their paths and the features of each, from `feature_layout`."""
    layout = feature_layout(config)
    names = list(dict.fromkeys(spec.map_name for spec in layout))
    figure = Figure(figsize=(11, 4.6))
    axes = figure.subplots()
    middle = (len(names) - 1) / 2
    _box(axes, 0.0, middle, "image\n384 x 128 x 3", "#eeeeee")
    _box(axes, 1.9, middle, f"stem, res2\nshared\nfold at {config.fold_at}", "#d9e6f2")
    _arrow(axes, (0.0, middle), (1.9, middle))
    for branch, granularity in enumerate(config.granularities):
        own = [name for name in names if name.startswith(f"local{granularity}/")]
        at = np.mean([_height(names, name) for name in own])
        text = f"res3 to res5\nof branch {granularity}\n(same weights\nin both paths)"
        _box(axes, 3.9, at, text, COLORS[branch], "white")
        _arrow(axes, (1.9, middle), (3.9, at))
        for name in own:
            specs = [spec for spec in layout if spec.map_name == name]
            path = specs[0].path
            how = "whole map" if path == "original" else f"folded into {granularity} stripes"
            y = _height(names, name)
            _box(axes, 5.9, y, f"{path} path\n{how}", "#f5f5f5")
            _arrow(axes, (3.9, at), (5.9, y))
            pooled = "balanced" if config.uses_abp(path, train=False) else "uniform"
            text = (
                f"{len(specs)} features of {config.embed_dim}:\n1 global, {len(specs) - 1} {pooled}"
            )
            _box(axes, 7.9, y, text, "#f5f5f5")
            _arrow(axes, (5.9, y), (7.9, y))
            _arrow(axes, (7.9, y), (9.9, middle))
    width = len(layout) * config.embed_dim
    _box(
        axes, 9.9, middle, f"embedding\n{len(layout)} x {config.embed_dim}\n= {width:,}", "#eeeeee"
    )
    axes.set_xlim(-0.85, 10.75)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.axis("off")
    return figure


def _height(names: list[str], name: str) -> int:
    return len(names) - 1 - names.index(name)


def _box(axes: Axes, x: float, y: float, text: str, color: str, ink: str = "black") -> None:
    corner = (x - 0.75, y - 0.4)
    box = FancyBboxPatch(corner, 1.5, 0.8, boxstyle="round,pad=0.02", fc=color, ec="#666666")
    axes.add_patch(box)
    axes.text(x, y, text, ha="center", va="center", fontsize=7.5, color=ink, zorder=3)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    ends = (start[0] + 0.77, start[1]), (end[0] - 0.77, end[1])
    arrow = FancyArrowPatch(*ends, arrowstyle="-|>", mutation_scale=10, color="#444444")
    axes.add_patch(arrow)


def draw_balanced(found: Inspection) -> Figure:
    """Uniform and balanced stripes of two images on a feature map of the demo."""
    config, count = found.trained.config.model, 2
    stripes = balanced_stripes(config, found.maps)
    # The images whose bounds are the farthest from uniform ones.
    moved = [
        float(np.abs(one.bounds - np.linspace(0, len(one.peaks), len(one.bounds))).sum())
        for (one, *_) in stripes
    ]
    chosen = np.argsort(moved)[::-1][:count]
    figure = Figure(figsize=(11, 4.2))
    grid = figure.subplots(1, 3 * count, width_ratios=[1, 1, 1.5] * count)
    for number, index in enumerate(chosen):
        (one, *_) = stripes[index]
        pixels, rows = found.images[index], one.peaks.sum(axis=1)
        height = len(pixels)
        whole, heat, bars = grid[3 * number : 3 * number + 3]
        scale = height / len(rows)
        whole.imshow(pixels)
        whole.set_title("image", fontsize=9)
        response = responses(found.maps[one.map_name])[index]
        heat.imshow(overlay(pixels, response, 4 * height), extent=(0, pixels.shape[1], height, 0))
        heat.set_title("mean response", fontsize=9)
        centers = (np.arange(len(rows)) + 0.5) * scale
        bars.barh(centers, rows, height=0.85 * scale, color="#888888")
        bars.set_ylim(height, 0)
        bars.set_box_aspect(height / pixels.shape[1] / 1.5)  # as high as the images
        bars.set_yticks([])
        bars.set_xlabel("channels with their\nmaximum in this row", fontsize=8)
        bars.set_title(f"balanced: {' / '.join(f'{share} %' for share in one.shares)}", fontsize=9)
        for axes in (whole, heat, bars):
            for bound in one.bounds[1:-1]:
                axes.axhline(bound * scale, color=COLORS[1], lw=2.5)
            for bound in range(1, len(one.bounds) - 1):
                axes.axhline(bound * height / (len(one.bounds) - 1), color=COLORS[0], lw=2, ls="--")
        whole.axis("off")
        heat.axis("off")
    return figure


def draw_shifting(images: np.ndarray) -> Figure:
    """Random shifting with the paper's parameters: the crop, and where the patch is pasted."""
    samples = shifting_samples(images, RandomShiftingConfig(probability=1.0), seed=1)
    figure = Figure(figsize=(11, 3.6))
    grid = figure.subplots(2, len(images))
    height, width = images.shape[1:3]
    for column, (image, sample) in enumerate(zip(images, samples, strict=True)):
        before, after = grid[:, column]
        before.imshow(image)
        corner = (sample.crop.left, sample.crop.top)
        box = (sample.crop.width - 1, sample.crop.height - 1)
        before.add_patch(Rectangle(corner, *box, fill=False, ec=COLORS[1], lw=2.5))
        after.imshow(sample.shifted)
        after.add_patch(Rectangle((-0.5, -0.5), width, height, fill=False, ec="#666666"))
        before.axis("off")
        after.axis("off")
    grid[0, 0].set_title("crop", fontsize=9)
    grid[1, 0].set_title("resized, shifted", fontsize=9)
    return figure


if __name__ == "__main__":
    main()
