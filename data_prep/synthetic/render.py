"""Renders the synthetic pedestrian benchmark in Market-1501's layout.

Every image is a pure function of (seed, pid, camera, index): it does not depend on the number of
processes, nor on the other images.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from data_prep.errors import InputError
from data_prep.files import expand
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
from data_prep.workers import map_chunks

FOLDERS = ("bounding_box_train", "query", "bounding_box_test")


def render(out: Path, preset: str, seed: int = 0, processes: int | None = None) -> Path:
    """Renders a preset of the benchmark to the new directory `out`.

    The images are written to a temporary directory next to `out`, which is renamed to `out` when it
    is complete: an interrupted run leaves no `out`.

    Args:
        out: the directory to make, with Market-1501's three folders.
        preset: a key of `PRESETS`.
        seed: another seed gives other persons, poses and boxes.
        processes: number of processes that render; see `map_chunks`.

    Returns:
        `out`.

    Raises:
        InputError: there is no such preset, `seed` or `processes` is out of range, or `out` exists
            and is not an empty directory.
    """
    out = expand(out)
    if preset not in PRESETS:
        raise InputError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}.")
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}.")
    if processes is not None and processes < 1:
        raise InputError(f"processes must be at least 1, got {processes}.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"{out} exists already: delete it, or render to another directory.")
    with _partial_directory(out) as partial_out:
        for folder in FOLDERS:
            (partial_out / folder).mkdir()
        write = partial(write_images, partial_out, seed)
        for _ in map_chunks(write, shots(PRESETS[preset], seed), "Rendering", processes):
            pass
        partial_out.chmod(0o755)  # mkdtemp's directory is for its owner alone
        os.replace(partial_out, out)
    return out


@contextmanager
def _partial_directory(out: Path) -> Iterator[Path]:
    """Makes a directory next to `out`, and removes it if it is still there after the block.

    Directories that killed renders of `out` left behind are removed first. A directory is locked
    while its process lives.
    """
    prefix = f".{out.name}.partial-"
    out.parent.mkdir(parents=True, exist_ok=True)
    for leftover in out.parent.iterdir():
        if leftover.name.startswith(prefix) and (lock := _lock(leftover)) is not None:
            shutil.rmtree(leftover, ignore_errors=True)
            os.close(lock)
    lock = None
    while lock is None:
        directory = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
        lock = _lock(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _lock(directory: Path) -> int | None:
    """Locks a directory; None if a living process has locked it, or it is gone."""
    with suppress(FileNotFoundError, NotADirectoryError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another process may have removed it before the lock.
            if directory.exists():
                return descriptor
        os.close(descriptor)
    return None


def render_image(seed: int, shot: Shot) -> Image:
    """Renders `shot` as an RGB image, uint8 [128, 64, 3]."""
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


def write_images(directory: Path, seed: int, plan: Sequence[Shot]) -> None:
    """Renders some images to their places below `directory`, whose folders are there."""
    # The images are too small to be worth OpenCV's threads.
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    for shot in plan:
        quality = CAMERAS[shot.camera - 1].quality
        bgr = np.ascontiguousarray(render_image(seed, shot)[..., ::-1])
        encoded, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not encoded:
            raise RuntimeError(f"OpenCV could not encode {shot.path} as JPEG.")
        (directory / shot.path).write_bytes(data.tobytes())
    cv2.setNumThreads(threads)
