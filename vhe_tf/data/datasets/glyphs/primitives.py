"""Stroke primitives: polylines `[n, 2]` of (x, y), y down, of any extent."""

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

__all__ = ["ANGULAR", "CURVED", "Primitive"]

Primitive = Callable[[np.random.Generator], np.ndarray]


def _line(rng: np.random.Generator) -> np.ndarray:
    return np.array([[0.0, 0.0], [0.0, 1.0]])


def _corner(rng: np.random.Generator) -> np.ndarray:
    angle = np.deg2rad(rng.choice([45.0, 60.0, 90.0, 90.0, 120.0]))
    length = rng.uniform(0.4, 1.0)
    end = length * np.array([np.sin(angle), 1.0 / length - np.cos(angle)])
    return np.array([[0.0, 0.0], [0.0, 1.0], end])


def _zigzag(rng: np.random.Generator) -> np.ndarray:
    num_legs = rng.integers(3, 5)
    steps = np.arange(num_legs + 1)
    height = rng.uniform(0.4, 1.1)
    return np.stack([steps * 0.45, (steps % 2) * height], axis=1)


def _staple(rng: np.random.Generator) -> np.ndarray:
    width = rng.uniform(0.5, 1.0)
    left, right = 1.0, rng.uniform(0.4, 1.0)
    return np.array([[0.0, left], [0.0, 0.0], [width, 0.0], [width, right]])


def _polygon(rng: np.random.Generator) -> np.ndarray:
    sides = rng.integers(3, 5)
    angle = 2.0 * np.pi * np.arange(sides + 1) / sides + np.pi / sides
    stretch = rng.uniform(0.6, 1.0)
    return np.stack([stretch * np.sin(angle), np.cos(angle)], axis=1)


def _arc(rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0.0, rng.uniform(0.6, 1.4) * np.pi, 40)
    return np.stack([np.cos(angle), rng.uniform(0.7, 1.3) * np.sin(angle)], 1)


def _ring(rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0.0, rng.uniform(1.85, 2.05) * np.pi, 60)
    return np.stack([rng.uniform(0.65, 1.0) * np.cos(angle), np.sin(angle)], 1)


def _hook(rng: np.random.Generator) -> np.ndarray:
    radius = rng.uniform(0.15, 0.32)
    angle = np.linspace(0.0, rng.uniform(0.7, 1.3) * np.pi, 30)
    curl = radius * np.stack([1.0 - np.cos(angle), np.sin(angle)], axis=1)
    return np.concatenate([[[0.0, -1.0 + radius]], curl])


def _cup(rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0.0, np.pi, 30)
    width = rng.uniform(0.3, 0.5)
    bowl = width * np.stack([-np.cos(angle), np.sin(angle)], axis=1)
    left, right = rng.uniform(0.2, 0.9, size=2)
    return np.concatenate([[[-width, -left]], bowl, [[width, -right]]])


def _wave(rng: np.random.Generator) -> np.ndarray:
    t = np.linspace(0.0, 1.0, 50)
    periods = rng.choice([1.0, 1.0, 1.5])
    height = rng.uniform(0.14, 0.3)
    return np.stack([height * np.sin(2.0 * np.pi * periods * t), t], axis=1)


def _bumps(rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0.0, np.pi, 30)
    arch = np.stack([-np.cos(angle), -rng.uniform(0.8, 1.3) * np.sin(angle)], 1)
    second = arch * rng.uniform(0.8, 1.2)
    return np.concatenate([arch, second + arch[-1] - second[0]])


def _loop(rng: np.random.Generator) -> np.ndarray:
    reach = rng.uniform(1.1, 1.9)
    handles = np.array(
        [[0.0, 0.0], [reach, -1.0], [1.0 - reach, -1.0], [1.0, 0.0]]
    )
    handles[3] += rng.uniform(-0.15, 0.3, size=2)
    t = np.linspace(0.0, 1.0, 60)[:, np.newaxis]
    return (
        (1 - t) ** 3 * handles[0]
        + 3 * (1 - t) ** 2 * t * handles[1]
        + 3 * (1 - t) * t**2 * handles[2]
        + t**3 * handles[3]
    )


def _spiral(rng: np.random.Generator) -> np.ndarray:
    angle = np.linspace(0.0, rng.uniform(2.5, 3.2) * np.pi, 80)
    radius = 1.0 - 0.72 * angle / angle[-1]
    return radius[:, np.newaxis] * np.stack([np.cos(angle), np.sin(angle)], 1)


def _meander(rng: np.random.Generator) -> np.ndarray:
    knots = [rng.uniform(size=2)]
    while len(knots) < 4:
        knot = rng.uniform(size=2)
        if np.hypot(*(knot - knots[-1])) > 0.5:
            knots.append(knot)
    ends = [2 * knots[0] - knots[1], *knots, 2 * knots[-1] - knots[-2]]
    t = np.linspace(0.0, 1.0, 20)[:, np.newaxis]
    return np.concatenate(
        [
            # Catmull-Rom: through b and c, with the slopes of a-c and b-d.
            b
            + 0.5 * t * (c - a)
            + t**2 * (a - 2.5 * b + 2.0 * c - 0.5 * d)
            + t**3 * (1.5 * (b - c) + 0.5 * (d - a))
            for a, b, c, d in zip(
                ends, ends[1:], ends[2:], ends[3:], strict=False
            )
        ]
    )


ANGULAR: Sequence[Primitive] = (_line, _corner, _zigzag, _staple, _polygon)
CURVED: Sequence[Primitive] = (
    _arc,
    _ring,
    _hook,
    _cup,
    _wave,
    _bumps,
    _loop,
    _spiral,
    _meander,
)
