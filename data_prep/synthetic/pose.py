"""Poses: the joints of a walking or standing person."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pose:
    """A moment of a walk. Angles are in radians."""

    yaw: float
    """Direction of the walk: 0 towards the camera, pi away from it, pi/2 to the right."""
    phase: float
    """Phase of the step, 0 to 2 pi."""
    stride: float
    """Amplitude of the thighs; near 0 for a person who stands."""
    lean: float
    """Forward lean of the upper body."""
    elbows: tuple[float, float]
    """Bend of the left and of the right elbow."""
    head: float
    """Turn of the head relative to the body."""


@dataclass(frozen=True)
class Skeleton:
    """Joints [.., 3] in meters: x to the right, y up from the ground, z towards the camera."""

    left: Points
    """Unit vector to the person's left."""
    forward: Points
    """Unit vector of the walk."""
    hip: Points
    neck: Points
    head_forward: Points
    legs: tuple[Points, Points]
    """Hip, knee and ankle of the left and of the right leg."""
    arms: tuple[Points, Points]
    """Shoulder, elbow and wrist of the left and of the right arm."""


def draw_pose(rng: np.random.Generator, yaw: float, phase: float) -> Pose:
    """Draws a pose of a person who walks in direction `yaw`."""
    stands = rng.random() < 0.15
    elbows = rng.uniform(0.1, 0.6, 2)
    if rng.random() < 0.12:  # looks at a telephone, or holds it to the ear
        elbows[rng.integers(2)] = rng.uniform(1.6, 2.4)
    return Pose(
        yaw=yaw,
        phase=phase,
        stride=float(rng.uniform(0.02, 0.08) if stands else rng.uniform(0.3, 0.5)),
        lean=float(rng.normal(0.05, 0.03)),
        elbows=(float(elbows[0]), float(elbows[1])),
        head=float(rng.normal(0, 0.3)),
    )


def skeleton(pose: Pose, height: float, build: float) -> Skeleton:
    """Computes the joints of a person of `height` meters; the lower foot is on the ground."""
    forward = np.array([np.sin(pose.yaw), 0.0, np.cos(pose.yaw)])
    left = np.array([np.cos(pose.yaw), 0.0, -np.sin(pose.yaw)])
    up = np.array([0.0, 1.0, 0.0])

    def swing(angle: float) -> Points:
        """Direction of a limb that hangs down, turned forwards by `angle`."""
        return np.sin(angle) * forward - np.cos(angle) * up

    legs, arms = [], []
    hip = np.array([0.0, 0.53 * height, 0.0])
    neck = hip + 0.31 * height * (np.cos(pose.lean) * up + np.sin(pose.lean) * forward)
    for side, phase, bend in (
        (1.0, pose.phase, pose.elbows[0]),
        (-1.0, pose.phase + np.pi, pose.elbows[1]),
    ):
        thigh = pose.stride * np.sin(phase)
        # The knee bends while its leg swings forwards.
        knee = 0.06 + 2.0 * pose.stride * max(0.0, np.cos(phase)) ** 1.5
        top = hip + side * 0.048 * height * np.sqrt(build) * left
        middle = top + 0.245 * height * swing(thigh)
        legs.append(np.stack([top, middle, middle + 0.24 * height * swing(thigh - knee)]))

        upper = -0.8 * pose.stride * np.sin(phase)
        outwards = side * left * (0.1 + 0.05 * build)
        shoulder = neck + side * 0.108 * height * build**0.7 * left - 0.025 * height * up
        elbow = shoulder + 0.165 * height * (swing(upper) + outwards)
        wrist = elbow + 0.15 * height * (swing(upper + bend) + 0.3 * outwards)
        arms.append(np.stack([shoulder, elbow, wrist]))

    # The supporting foot stands on the ground, which lowers the hips in a long step.
    lift = 0.045 * height - min(leg[2, 1] for leg in legs)
    shift = lift * up
    turn = pose.yaw + pose.head
    return Skeleton(
        left=left,
        forward=forward,
        hip=hip + shift,
        neck=neck + shift,
        head_forward=np.array([np.sin(turn), 0.0, np.cos(turn)]),
        legs=(legs[0] + shift, legs[1] + shift),
        arms=(arms[0] + shift, arms[1] + shift),
    )
