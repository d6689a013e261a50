"""Renders the synthetic pedestrian benchmark in Market-1501's layout.

Every image is a pure function of (seed, pid, camera, index): the same whatever the number of
processes, and whichever other images are rendered beside it.
"""

import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from data_prep.progress import track
from data_prep.synthetic import detector, scene
from data_prep.synthetic.body import Mesh, person_mesh
from data_prep.synthetic.camera import (
    CAMERAS,
    HEIGHT,
    SUPERSAMPLE,
    WIDTH,
    Camera,
    Image,
    draw_mesh,
    expose,
    heading,
    view,
)
from data_prep.synthetic.layout import PRESETS, Shot, shots
from data_prep.synthetic.person import make_person, make_stranger
from data_prep.synthetic.pose import draw_pose
from data_prep.synthetic.streams import stream

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def render(out: Path, preset: str, seed: int = 0, processes: int | None = None) -> Path:
    """Write the benchmark `preset` to the new directory `out`.

    The images are written to a temporary directory beside `out`, which gets its name when all are
    there: an interrupted run leaves no `out`.

    Args:
        out: the directory to make; it gets Market-1501's three folders.
        preset: a key of `PRESETS`.
        seed: another seed gives other persons, poses and boxes.
        processes: that render; None is one for each CPU this process may use.

    Returns:
        `out`.

    Raises:
        ValueError: there is no such preset, or `seed` or `processes` is out of range.
        FileExistsError: `out` exists and is not an empty directory.
    """
    out = Path(out)
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}.")
    if processes is not None and processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} exists already: delete it, or render to another directory.")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial_out = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        for folder in FOLDERS:
            (partial_out / folder).mkdir()
        _write_all(partial_out, shots(PRESETS[preset], seed), seed, processes)
        partial_out.chmod(0o755)  # mkdtemp's is for its owner alone
        os.replace(partial_out, out)
    except BaseException:
        shutil.rmtree(partial_out, ignore_errors=True)
        raise
    return out


def render_image(seed: int, shot: Shot) -> Image:
    """The image [128, 64, 3] (RGB, uint8) of `shot`."""
    rng = stream(seed, "image", shot.pid, shot.camera, shot.index)
    camera = CAMERAS[shot.camera - 1]
    mesh = _walker(seed, shot, camera, rng)
    tight = detector.tight_box(view(camera, mesh.quads)[..., :2])
    box = detector.detect_junk(tight, rng) if shot.pid < 0 else detector.detect(tight, rng)
    size = (SUPERSAMPLE * HEIGHT, SUPERSAMPLE * WIDTH)
    canvas = scene.backdrop(seed, camera, box, size, rng)
    if shot.pid == 0 and rng.random() < 0.3:
        return expose(canvas, camera, rng)  # the detector fired at the background
    if rng.random() < 0.15:
        draw_mesh(canvas, _passer_by(rng, -rng.uniform(0.6, 2.0)), camera, box)
    scene.cast_shadow(canvas, camera, box, tight)
    draw_mesh(canvas, mesh, camera, box)
    hidden_by = rng.choice(
        ["nothing", "pole", "bush", "railing", "person"], p=[0.76, 0.05, 0.06, 0.04, 0.09]
    )
    if hidden_by == "person":
        draw_mesh(canvas, _passer_by(rng, rng.uniform(0.4, 0.9)), camera, box)
    elif hidden_by != "nothing":
        scene.obstruct(canvas, hidden_by, rng)
    return expose(canvas, camera, rng)


def _walker(seed: int, shot: Shot, camera: Camera, rng: np.random.Generator) -> Mesh:
    """The person of `shot`. Images of one person by one camera are moments of one walk."""
    if shot.pid == 0:
        person, yaw = make_stranger(rng), float(rng.uniform(0, 2 * np.pi))
    else:
        person = make_person(seed, shot.person)
        yaw = heading(camera, seed, shot.person) + float(rng.normal(0, 0.25))
    return person_mesh(person, draw_pose(rng, yaw, float(rng.uniform(0, 2 * np.pi))), rng)


def _passer_by(rng: np.random.Generator, nearer: float) -> Mesh:
    """A stranger to the left or right of the person, `nearer` meters closer to the camera."""
    pose = draw_pose(rng, float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0, 2 * np.pi)))
    mesh = person_mesh(make_stranger(rng), pose, rng)
    aside = rng.choice([-1, 1]) * rng.uniform(0.25, 0.6)
    return mesh._replace(quads=mesh.quads + np.array([aside, 0, nearer], np.float32))


def _write_all(directory: Path, plan: list[Shot], seed: int, processes: int | None) -> None:
    write = partial(_write, directory, seed)
    if processes is None:
        usable = hasattr(os, "sched_getaffinity")
        processes = len(os.sched_getaffinity(0)) if usable else os.cpu_count() or 1
    processes = min(processes, len(plan))
    sizes = [1] * len(plan)
    if processes == 1:
        for _ in track(map(write, plan), sizes, "Rendering"):
            pass
        return
    # Spawned, not forked: the caller may have threads, which a fork does not survive.
    with ProcessPoolExecutor(
        processes, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        for _ in track(pool.map(write, plan, chunksize=16), sizes, "Rendering"):
            pass


def _write(directory: Path, seed: int, shot: Shot) -> None:
    quality = CAMERAS[shot.camera - 1].quality
    bgr = np.ascontiguousarray(render_image(seed, shot)[..., ::-1])
    encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise OSError(f"OpenCV could not encode {shot.path} as JPEG.")
    (directory / shot.path).write_bytes(data.tobytes())
