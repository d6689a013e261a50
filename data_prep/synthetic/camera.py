"""Cameras: their positions, how meshes are projected and drawn, and the noise of the sensors."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.synthetic.body import Mesh
from data_prep.synthetic.streams import stream

Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]

HEIGHT, WIDTH = 128, 64
"""Size of every image of the benchmark, as in Market-1501."""
SUPERSAMPLE = 3
"""Scenes and persons are drawn this many times larger, then averaged down."""


@dataclass(frozen=True)
class Camera:
    """One camera of the benchmark. Angles are in radians."""

    number: int
    """1 to 6, as in the file names."""
    pitch: float
    """Downward tilt."""
    roll: float
    """Sideways tilt."""
    distance: float
    """Distance to the person in meters: a near camera shows the head larger than the feet."""
    headings: tuple[float, ...]
    """Directions in which people walk past it."""
    light: tuple[float, float, float]
    """Direction towards the light."""
    ambient: float
    """Share of ambient light."""
    gains: tuple[float, float, float]
    """Color cast: factors of red, green and blue."""
    gamma: float
    contrast: float
    saturation: float
    blur: float
    """Standard deviation in pixels of the final image."""
    resolution: float
    """Rows and columns that the sensor resolves, as a share of those of the image."""
    noise: float
    quality: int
    """Quality of the JPEG file."""


CAMERAS: tuple[Camera, ...] = (
    Camera(1, 0.20, 0.02, 7.0, (0.2, 3.3), (0.3, 0.8, 0.5), 0.65,
           (1.08, 1.01, 0.92), 0.95, 1.00, 1.00, 0.5, 1.0, 3.0, 90),
    Camera(2, 0.32, -0.04, 5.0, (1.3, 4.6), (-0.7, 0.5, 0.4), 0.60,
           (0.95, 1.00, 1.06), 1.05, 0.95, 0.85, 0.6, 0.85, 4.0, 80),
    Camera(3, 0.10, 0.00, 9.0, (0.6, 3.9), (0.0, 0.9, 0.3), 0.75,
           (1.04, 1.04, 1.00), 0.88, 0.90, 0.90, 0.4, 1.0, 2.0, 92),
    Camera(4, 0.50, 0.05, 4.5, (-0.5, 2.6), (0.6, 0.7, -0.2), 0.60,
           (0.96, 1.05, 0.96), 1.00, 1.08, 0.95, 0.5, 0.8, 4.0, 75),
    Camera(5, 0.26, -0.02, 6.0, (-0.9, 2.2), (-0.3, 0.9, 0.2), 0.70,
           (1.01, 0.98, 1.04), 0.95, 1.05, 1.12, 0.5, 0.9, 3.0, 85),
    Camera(6, 0.38, 0.03, 8.0, (1.8, 5.0), (0.2, 0.6, 0.7), 0.65,
           (0.97, 0.95, 0.88), 1.18, 0.95, 0.80, 0.6, 0.65, 5.0, 65),
)  # fmt: skip
"""The six cameras of a campus: gates, a park, shops, a road, a hall and a yard at dusk."""


@dataclass(frozen=True)
class Box:
    """A detected box in meters of the picture plane, y up, origin at the feet."""

    left: float
    bottom: float
    width: float
    height: float


def view(camera: Camera, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Projects points [..., 3]: x right and y up in the picture plane of `camera`, z nearness.

    The person's place on the ground is the origin of both.
    """
    x, y, z = points[..., 0], points[..., 1], points[..., 2]
    sin, cos = np.sin(camera.pitch), np.cos(camera.pitch)
    # The camera looks at a point one meter above the ground.
    up, near = (y - 1.0) * cos - z * sin, (y - 1.0) * sin + z * cos
    scale = camera.distance / (camera.distance - near)
    ground = -cos * camera.distance / (camera.distance + sin)
    x, up = x * scale, up * scale - ground
    sin, cos = np.sin(camera.roll), np.cos(camera.roll)
    return np.stack([cos * x - sin * up, sin * x + cos * up, near], axis=-1).astype(np.float32)


def to_pixels(points: npt.NDArray[np.floating], box: Box, canvas: Image) -> FloatImage:
    """Maps points [..., 2] of the picture plane to x and y on `canvas`, which shows `box`."""
    rows, columns = canvas.shape[:2]
    x = (points[..., 0] - box.left) / box.width * columns
    y = (box.bottom + box.height - points[..., 1]) / box.height * rows
    return np.stack([x, y], axis=-1)


def draw_mesh(canvas: Image, mesh: Mesh, camera: Camera, box: Box) -> None:
    """Draws the faces of `mesh` that point to the camera on `canvas`, the far ones first."""
    seen = view(camera, mesh.quads)
    pixels = to_pixels(seen[..., :2], box, canvas)
    diagonal, other = pixels[:, 2] - pixels[:, 0], pixels[:, 3] - pixels[:, 1]
    outside = diagonal[:, 0] * other[:, 1] - diagonal[:, 1] * other[:, 0] < 0
    order = np.flatnonzero(outside)
    order = order[np.argsort(seen[order, :, 2].mean(1), kind="stable")]
    corners = np.round(pixels[order] * 16).astype(np.int32)
    colors = (mesh.colors[order] * _shade(mesh.quads[order], camera)[:, None]).clip(0, 255)
    for corner, color in zip(corners, colors.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, corner, color, lineType=cv2.LINE_8, shift=4)


def _shade(quads: npt.NDArray[np.floating], camera: Camera) -> npt.NDArray[np.floating]:
    """Brightness [N] of faces: diffuse light, and darker where a face is seen edge-on."""
    normal = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    light = np.array(camera.light) / np.linalg.norm(camera.light)
    facing = normal @ np.array([0.0, np.sin(camera.pitch), np.cos(camera.pitch)])
    diffuse = camera.ambient + (1 - camera.ambient) * 1.3 * np.maximum(normal @ light, 0)
    return diffuse * (0.8 + 0.2 * np.abs(facing))


def expose(canvas: Image, camera: Camera, rng: np.random.Generator) -> Image:
    """Applies the sensor of `camera` to a supersampled canvas: the final RGB image [128, 64, 3]."""
    image = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    image = image.astype(np.float32) / 255
    gray = image.mean(axis=2, keepdims=True)
    image = gray + camera.saturation * (image - gray)
    exposure = rng.uniform(0.85, 1.15)
    image = exposure * image * np.array(camera.gains, np.float32)
    image = image.clip(0, 1) ** np.float32(camera.gamma)
    image = (0.5 + camera.contrast * (image - 0.5)).clip(0, 1)
    sigma = camera.blur * rng.uniform(0.8, 1.4)
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    kept = camera.resolution * rng.uniform(0.75, 1.0)
    small = (max(8, round(WIDTH * kept)), max(16, round(HEIGHT * kept)))
    image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    image = image + rng.normal(0, camera.noise / 255, image.shape)
    image = cv2.resize(image.astype(np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    return np.round(255 * image.clip(0, 1)).astype(np.uint8)


def heading(camera: Camera, seed: int, pid: int) -> float:
    """Draws the direction in which `pid` walks past `camera`: mostly along its paths."""
    rng = stream(seed, "heading", pid, camera.number)
    if rng.random() < 0.2:
        return float(rng.uniform(0, 2 * np.pi))
    return float(rng.choice(camera.headings) + rng.normal(0, 0.35))
