"""Scripts, and the characters that they compose of stroke primitives."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from vhe_tf.data.datasets.glyphs.pen import render
from vhe_tf.data.datasets.glyphs.primitives import ANGULAR
from vhe_tf.data.datasets.glyphs.primitives import CURVED

__all__ = [
    "MAX_STROKES",
    "NUM_POINTS",
    "Character",
    "Joint",
    "Script",
    "pad",
    "sample_characters",
    "sample_script",
]

# Points of an ideal stroke, evenly spaced along its length.
NUM_POINTS = 48
MAX_STROKES = 4
# Two characters look alike when the cosine of their coarse images is higher.
_MAX_SIMILARITY = 0.72
_COARSE_SIZE = 16
_COARSE_PEN = 1.8
# Characters that fill less of their strokes' area than this are illegible.
_MIN_COVER = 0.8
_NUM_CANDIDATES = 64


@dataclasses.dataclass(frozen=True)
class Script:
    """The habits that the characters of one alphabet share.

    Attributes:
        inventory: Sequence of arrays `[P, 2]`. The primitives, each with a
            largest extent of 1.
        frequency: Float array. The probability of each primitive.
        num_strokes: Float array. The probabilities of 1, 2, ... strokes.
        joints: Mapping of strings to floats. The probability of each kind of
            joint.
        turns: Sequence of integers. The rotations, in quarters, that a
            primitive may have.
        mirrors: Boolean. Whether mirror images of primitives occur.
        minor: Float. The size of later strokes relative to the first.
        bar: String. The side of the line that all characters have, or an empty
            string.
        dots: Float. The probability of a dot.
        aspect: Float. The usual width of a character divided by its height.
        size: Float. The usual size relative to the frame.
    """

    inventory: Sequence[np.ndarray]
    frequency: np.ndarray
    num_strokes: np.ndarray
    joints: Mapping[str, float]
    turns: Sequence[int]
    mirrors: bool
    minor: float
    bar: str
    dots: float
    aspect: float
    size: float


@dataclasses.dataclass(frozen=True)
class Joint:
    """The point of a stroke that is attached to a point of a parent."""

    parent: int
    parent_point: int
    own_point: int


@dataclasses.dataclass(frozen=True)
class Character:
    """Ideal strokes `[S, P, 2]` in a frame of extent 1 and their joints."""

    strokes: np.ndarray
    joints: Sequence[Joint]


def sample_script(rng: np.random.Generator) -> Script:
    """Samples the habits that the characters of one alphabet share."""
    angularity = rng.beta(0.5, 0.6)
    kinds = [
        rng.choice(len(ANGULAR))
        if rng.uniform() < angularity
        else len(ANGULAR) + rng.choice(len(CURVED))
        for _ in range(rng.integers(4, 7))
    ]
    primitives = (*ANGULAR, *CURVED)
    # Most scripts stand upright and keep to a few directions.
    step = rng.choice([15.0, 30.0, 45.0, 90.0], p=[0.1, 0.15, 0.25, 0.5])
    inventory = []
    for kind in kinds:
        degrees = step * rng.integers(0, int(360 / step))
        inventory.append(
            _standardise(_rotate(primitives[kind](rng), np.deg2rad(degrees)))
        )
    bar = rng.choice(["", "top", "bottom", "left"], p=[0.62, 0.16, 0.1, 0.12])
    mean_strokes = rng.uniform(1.2, 3.2)
    distance = np.arange(1, MAX_STROKES + 1) - mean_strokes
    num_strokes = np.exp(-(distance**2))
    kinds_of_joints = ("chain", "branch", "cross", "beside")
    weights = rng.dirichlet([1.0, 1.0, 0.5, 0.4])
    return Script(
        inventory=inventory,
        frequency=rng.dirichlet(np.full(len(inventory), 2.0)),
        num_strokes=num_strokes / num_strokes.sum(),
        joints=dict(zip(kinds_of_joints, weights, strict=True)),
        turns=((0,), (0, 2), (0, 1, 2, 3))[rng.integers(3)],
        mirrors=bool(rng.uniform() < 0.5),
        minor=rng.uniform(0.45, 0.85),
        bar=str(bar),
        dots=rng.uniform(0.15, 0.5) if rng.uniform() < 0.35 else 0.0,
        aspect=np.exp(rng.normal(0.0, 0.22)),
        size=rng.uniform(0.82, 1.0),
    )


def _rotate(points: np.ndarray, radians: float) -> np.ndarray:
    cos, sin = np.cos(radians), np.sin(radians)
    return points @ np.array([[cos, sin], [-sin, cos]])


def _standardise(polyline: np.ndarray) -> np.ndarray:
    """Returns `[P, 2]` even points, centred and with a largest extent of 1."""
    lengths = np.hypot(*np.diff(polyline, axis=0).T)
    position = np.concatenate([[0.0], np.cumsum(lengths)])
    target = np.linspace(0.0, position[-1], NUM_POINTS)
    points = np.stack(
        [np.interp(target, position, axis) for axis in polyline.T], axis=1
    )
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2.0) / (high - low).max()


def sample_characters(
    script: Script, num_characters: int, *, rng: np.random.Generator
) -> list[Character]:
    """Returns distinct and legible characters of a script."""
    chosen: list[Character] = []
    seen = np.zeros((0, _COARSE_SIZE**2), np.float32)
    max_similarity, min_cover = _MAX_SIMILARITY, _MIN_COVER
    while len(chosen) < num_characters:
        candidates = [_compose(script, rng) for _ in range(_NUM_CANDIDATES)]
        images, cover = _coarse_images(candidates)
        for index in np.flatnonzero(cover >= min_cover):
            if np.all(seen @ images[index] <= max_similarity):
                chosen.append(candidates[index])
                seen = np.concatenate([seen, images[index : index + 1]])
        # A poor inventory has few distinct or legible characters: without
        # asking for less, this might never end.
        max_similarity += 0.04 * (1.0 - max_similarity)
        if not np.any(cover >= min_cover):
            min_cover *= 0.95
    return chosen[:num_characters]


def _compose(script: Script, rng: np.random.Generator) -> Character:
    num_strokes = 1 + rng.choice(MAX_STROKES, p=script.num_strokes)
    has_bar = bool(script.bar)
    has_dot = rng.uniform() < script.dots
    num_body = max(1, min(num_strokes, MAX_STROKES - has_bar - has_dot))
    strokes = [_sample_stroke(script, rng)]
    joints = [Joint(0, 0, 0)]
    for _ in range(num_body - 1):
        size = np.clip(script.minor * np.exp(rng.normal(0.0, 0.2)), 0.45, 1.0)
        stroke, joint = _attach(
            strokes, size * _sample_stroke(script, rng), script, rng
        )
        strokes.append(stroke)
        joints.append(joint)
    body = np.stack(strokes)
    aspect = script.aspect * np.exp(rng.normal(0.0, 0.1))
    body = body * np.sqrt([aspect, 1.0 / aspect])
    strokes = list(body)
    if has_bar:
        strokes.append(_bar(body, script.bar))
        joints.append(_nearest_joint(strokes))
    if has_dot:
        strokes.append(_dot(np.stack(strokes), rng))
        joints.append(_nearest_joint(strokes))
    points = np.stack(strokes)
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    size = script.size * rng.uniform(0.8, 1.0)
    points = size * (points - (low + high) / 2.0) / (high - low).max()
    return Character(points, joints)


def _sample_stroke(script: Script, rng: np.random.Generator) -> np.ndarray:
    index = rng.choice(len(script.inventory), p=script.frequency)
    stroke = script.inventory[index]
    stroke = _rotate(stroke, np.pi / 2.0 * rng.choice(script.turns))
    if script.mirrors and rng.uniform() < 0.5:
        stroke = stroke * [-1.0, 1.0]
    return stroke


def _attach(
    strokes: Sequence[np.ndarray],
    stroke: np.ndarray,
    script: Script,
    rng: np.random.Generator,
) -> tuple[np.ndarray, Joint]:
    """Returns the stroke moved to where it is attached, and the joint."""
    last = NUM_POINTS - 1
    along = [last // 4, last // 2, 3 * last // 4]
    kind = rng.choice(list(script.joints), p=list(script.joints.values()))
    parent = len(strokes) - 1
    if kind != "chain":
        parent = int(rng.integers(len(strokes)))
    if kind == "beside":
        points = np.concatenate(strokes)
        axis = rng.choice(2, p=[0.6, 0.4])
        gap = rng.uniform(0.15, 0.25)
        shift = points.mean(axis=0) - stroke.mean(axis=0)
        shift[axis] = points[:, axis].max() - stroke[:, axis].min() + gap
        return stroke + shift, _nearest_joint([*strokes, stroke + shift])
    if kind == "chain":
        joint = Joint(parent, last, 0)
    elif kind == "branch":
        joint = Joint(
            parent, int(rng.choice([0, *along])), int(rng.choice([0, last]))
        )
    else:
        joint = Joint(parent, int(rng.choice(along)), last // 2)
    shift = strokes[parent][joint.parent_point] - stroke[joint.own_point]
    return stroke + shift, joint


def _nearest_joint(strokes: Sequence[np.ndarray]) -> Joint:
    """Returns the joint of the last stroke to the closest earlier point."""
    own, others = strokes[-1], np.concatenate(strokes[:-1])
    squares = ((own[:, np.newaxis] - others) ** 2).sum(axis=-1)
    own_point, other = np.unravel_index(squares.argmin(), squares.shape)
    parent, parent_point = divmod(int(other), NUM_POINTS)
    return Joint(parent, parent_point, int(own_point))


def _bar(body: np.ndarray, side: str) -> np.ndarray:
    low, high = body.min(axis=(0, 1)), body.max(axis=(0, 1))
    if side == "left":
        margin = 0.08 * (high[1] - low[1])
        ends = np.array([[low[0], low[1] - margin], [low[0], high[1] + margin]])
    else:
        y = low[1] if side == "top" else high[1]
        middle = (low[0] + high[0]) / 2.0
        half = max(0.35, 0.58 * (high[0] - low[0]))
        ends = np.array([[middle - half, y], [middle + half, y]])
    t = np.linspace(0.0, 1.0, NUM_POINTS)[:, np.newaxis]
    return ends[0] + t * (ends[1] - ends[0])


def _dot(strokes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = strokes.min(axis=(0, 1)), strokes.max(axis=(0, 1))
    middle = (low + high) / 2.0
    spots = np.array(
        [
            [middle[0], low[1] - 0.18],
            [middle[0], high[1] + 0.18],
            [high[0] + 0.18, middle[1]],
            middle,
        ]
    )
    angle = np.linspace(0.0, 2.0 * np.pi, NUM_POINTS)
    ring = 0.03 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return spots[rng.choice(4, p=[0.45, 0.2, 0.15, 0.2])] + ring


def _coarse_images(
    characters: Sequence[Character],
) -> tuple[np.ndarray, np.ndarray]:
    """Draws characters without noise, small and with a broad pen.

    Args:
        characters: The `n` characters.

    Returns:
        The images `[n, _COARSE_SIZE**2]`, of unit norm, and how much of them
        is inked, `[n]`, relative to strokes of that length without any
        overlap. Strokes that run along each other or are crammed give a low
        number.
    """
    strokes, _, used = pad(characters)
    extent = np.ptp(strokes, axis=(1, 2)).max(axis=1)
    strokes = strokes / extent[:, np.newaxis, np.newaxis, np.newaxis]
    paths = 0.5 * _COARSE_SIZE + 0.75 * _COARSE_SIZE * strokes
    width = np.full(len(paths), _COARSE_PEN)
    images = render(paths, used, width=width, image_size=_COARSE_SIZE)
    flat = images.reshape(len(images), -1).astype(np.float32) / 255.0
    steps = np.linalg.norm(np.diff(paths, axis=2), axis=-1).sum(axis=2)
    length = np.sum(steps * used, axis=1)
    ends = np.pi / 4.0 * _COARSE_PEN**2 * used.sum(axis=1)
    cover = flat.sum(axis=1) / (_COARSE_PEN * length + ends)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True), cover


def pad(
    characters: Sequence[Character],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns strokes `[C, S, P, 2]`, joints `[C, S, 3]`, used `[C, S]`."""
    shape = (len(characters), MAX_STROKES)
    strokes = np.zeros((*shape, NUM_POINTS, 2))
    joints = np.zeros((*shape, 3), int)
    used = np.zeros(shape, bool)
    for index, character in enumerate(characters):
        size = len(character.strokes)
        strokes[index, :size] = character.strokes
        strokes[index, size:] = character.strokes[0]
        joints[index, :size] = [
            dataclasses.astuple(joint) for joint in character.joints
        ]
        used[index, :size] = True
    return strokes, joints, used
