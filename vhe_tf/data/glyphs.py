"""Procedural handwriting of unknown scripts, which needs no download.

The hierarchy is that of Omniglot (Lake et al., 2015): a script has a small
inventory of stroke primitives, a character composes one to four of them at
anchor points, a drawer has a hand of their own, and each drawing adds motor
noise. Unlike in Omniglot, the drawers are the same people for all alphabets.
"""

import dataclasses
import types
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from vhe_tf.data import grouped_images

__all__ = ["glyphs"]

# Points of an ideal stroke, evenly spaced along its length.
_NUM_POINTS = 48
_MAX_STROKES = 4
# Cosine modes of the motor noise along a stroke.
_NUM_MODES = 5
# Two characters look alike when the cosine of their coarse images is higher.
_MAX_SIMILARITY = 0.72
_COARSE_SIZE = 16
_COARSE_PEN = 1.8
# Characters that fill less of their strokes' area than this are illegible.
_MIN_COVER = 0.8
_NUM_CANDIDATES = 64
# The size in pixels at which pen widths are given.
_REFERENCE_SIZE = 28

_Primitive = Callable[[np.random.Generator], np.ndarray]


def glyphs(
    *,
    num_alphabets: int = 30,
    characters_per_alphabet: int = 20,
    num_drawers: int = 20,
    image_size: int = 28,
    seed: int = 0,
) -> grouped_images.GroupedImages:
    """Returns drawings of the characters of made-up alphabets.

    Each drawer draws each character once. Alphabets and drawers have random
    streams of their own: fewer alphabets are a prefix of more alphabets.

    Args:
        num_alphabets: The number of alphabets.
        characters_per_alphabet: The number of characters of each alphabet.
        num_drawers: The number of drawers, hence of images a character.
        image_size: Height and width of the images, pixels, at least 8.
        seed: Non-negative int; equal seeds give equal images.

    Returns:
        Images `[M, image_size, image_size, 1]`, uint8, ink 255 on 0, ordered
        by character and then by drawer, with int32 labels `"alphabet"`,
        `"character"` (unique across alphabets) and `"drawer"`.

    Raises:
        ValueError: If a count is not a positive int, if `image_size` is not
            an int of at least 8, or if `seed` is not a non-negative int.
    """
    _check_int("num_alphabets", num_alphabets, 1)
    _check_int("characters_per_alphabet", characters_per_alphabet, 1)
    _check_int("num_drawers", num_drawers, 1)
    _check_int("image_size", image_size, 8)
    _check_int("seed", seed, 0)
    alphabets, drawers = np.random.SeedSequence(seed).spawn(2)
    hands = _sample_hands(drawers.spawn(num_drawers))
    images = [
        _draw_alphabet(stream, characters_per_alphabet, hands, image_size)
        for stream in alphabets.spawn(num_alphabets)
    ]
    num_characters = num_alphabets * characters_per_alphabet
    character = np.repeat(
        np.arange(num_characters, dtype=np.int32), num_drawers
    )
    drawer = np.tile(np.arange(num_drawers, dtype=np.int32), num_characters)
    return grouped_images.GroupedImages(
        np.concatenate(images)[..., np.newaxis],
        {
            "alphabet": character // np.int32(characters_per_alphabet),
            "character": character,
            "drawer": drawer,
        },
        _group_names(num_alphabets, characters_per_alphabet, num_drawers),
    )


def _check_int(name: str, value: int, minimum: int) -> None:
    if (
        not isinstance(value, (int, np.integer))
        or isinstance(value, bool)
        or value < minimum
    ):
        raise ValueError(
            f"`{name}` must be an int of at least {minimum}. "
            f"Received: {name}={value!r}."
        )


def _group_names(
    num_alphabets: int, characters_per_alphabet: int, num_drawers: int
) -> dict[str, dict[int, str]]:
    return {
        "alphabet": {a: f"alphabet {a:02d}" for a in range(num_alphabets)},
        "character": {
            a * characters_per_alphabet + k: f"alphabet {a:02d}, "
            f"character {k:02d}"
            for a in range(num_alphabets)
            for k in range(characters_per_alphabet)
        },
        "drawer": {d: f"drawer {d:02d}" for d in range(num_drawers)},
    }


# Primitives: polylines `[n, 2]` of (x, y), y down, of any size and position.


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


_ANGULAR: Sequence[_Primitive] = (_line, _corner, _zigzag, _staple, _polygon)
_CURVED: Sequence[_Primitive] = (
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


@dataclasses.dataclass(frozen=True)
class _Script:
    """The habits that the characters of one alphabet share.

    Attributes:
        inventory: The primitives, each `[P, 2]` with a largest extent of 1.
        frequency: The probability of each primitive.
        num_strokes: The probabilities of 1, 2, ... strokes.
        joints: The probabilities of the kinds of joints.
        turns: The rotations, in quarters, a primitive may occur with.
        mirrors: Whether mirror images of primitives occur.
        minor: The size of later strokes relative to the first.
        bar: The side of the line that all characters have, or an empty string.
        dots: The probability of a dot.
        aspect: The usual width of a character divided by its height.
        size: The usual size relative to the frame.
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
class _Joint:
    """Where a stroke is attached: a point of its own to one of a parent."""

    parent: int
    parent_point: int
    own_point: int


@dataclasses.dataclass(frozen=True)
class _Character:
    """Ideal strokes `[S, P, 2]` in a frame of extent 1 and their joints."""

    strokes: np.ndarray
    joints: Sequence[_Joint]


def _sample_script(rng: np.random.Generator) -> _Script:
    angularity = rng.beta(0.5, 0.6)
    kinds = [
        rng.choice(len(_ANGULAR))
        if rng.uniform() < angularity
        else len(_ANGULAR) + rng.choice(len(_CURVED))
        for _ in range(rng.integers(4, 7))
    ]
    primitives = (*_ANGULAR, *_CURVED)
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
    distance = np.arange(1, _MAX_STROKES + 1) - mean_strokes
    num_strokes = np.exp(-(distance**2))
    kinds_of_joints = ("chain", "branch", "cross", "beside")
    weights = rng.dirichlet([1.0, 1.0, 0.5, 0.4])
    return _Script(
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
    target = np.linspace(0.0, position[-1], _NUM_POINTS)
    points = np.stack(
        [np.interp(target, position, axis) for axis in polyline.T], axis=1
    )
    low, high = points.min(axis=0), points.max(axis=0)
    return (points - (low + high) / 2.0) / (high - low).max()


def _sample_characters(
    script: _Script, num_characters: int, rng: np.random.Generator
) -> list[_Character]:
    """Returns distinct and legible characters of a script."""
    chosen: list[_Character] = []
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


def _compose(script: _Script, rng: np.random.Generator) -> _Character:
    num_strokes = 1 + rng.choice(_MAX_STROKES, p=script.num_strokes)
    has_bar = bool(script.bar)
    has_dot = rng.uniform() < script.dots
    num_body = max(1, min(num_strokes, _MAX_STROKES - has_bar - has_dot))
    strokes = [_sample_stroke(script, rng)]
    joints = [_Joint(0, 0, 0)]
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
    return _Character(points, joints)


def _sample_stroke(script: _Script, rng: np.random.Generator) -> np.ndarray:
    index = rng.choice(len(script.inventory), p=script.frequency)
    stroke = script.inventory[index]
    stroke = _rotate(stroke, np.pi / 2.0 * rng.choice(script.turns))
    if script.mirrors and rng.uniform() < 0.5:
        stroke = stroke * [-1.0, 1.0]
    return stroke


def _attach(
    strokes: Sequence[np.ndarray],
    stroke: np.ndarray,
    script: _Script,
    rng: np.random.Generator,
) -> tuple[np.ndarray, _Joint]:
    """Returns the stroke moved to where it is attached, and the joint."""
    last = _NUM_POINTS - 1
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
        joint = _Joint(parent, last, 0)
    elif kind == "branch":
        joint = _Joint(
            parent, int(rng.choice([0, *along])), int(rng.choice([0, last]))
        )
    else:
        joint = _Joint(parent, int(rng.choice(along)), last // 2)
    shift = strokes[parent][joint.parent_point] - stroke[joint.own_point]
    return stroke + shift, joint


def _nearest_joint(strokes: Sequence[np.ndarray]) -> _Joint:
    """Returns the joint of the last stroke to the closest earlier point."""
    own, others = strokes[-1], np.concatenate(strokes[:-1])
    squares = ((own[:, np.newaxis] - others) ** 2).sum(axis=-1)
    own_point, other = np.unravel_index(squares.argmin(), squares.shape)
    parent, parent_point = divmod(int(other), _NUM_POINTS)
    return _Joint(parent, parent_point, int(own_point))


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
    t = np.linspace(0.0, 1.0, _NUM_POINTS)[:, np.newaxis]
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
    angle = np.linspace(0.0, 2.0 * np.pi, _NUM_POINTS)
    ring = 0.03 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return spots[rng.choice(4, p=[0.45, 0.2, 0.15, 0.2])] + ring


def _coarse_images(
    characters: Sequence[_Character],
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
    strokes, _, used = _pad(characters)
    extent = np.ptp(strokes, axis=(1, 2)).max(axis=1)
    strokes = strokes / extent[:, np.newaxis, np.newaxis, np.newaxis]
    paths = 0.5 * _COARSE_SIZE + 0.75 * _COARSE_SIZE * strokes
    width = np.full(len(paths), _COARSE_PEN)
    images = _render(paths, used, width, _COARSE_SIZE)
    flat = images.reshape(len(images), -1).astype(np.float32) / 255.0
    steps = np.linalg.norm(np.diff(paths, axis=2), axis=-1).sum(axis=2)
    length = np.sum(steps * used, axis=1)
    ends = np.pi / 4.0 * _COARSE_PEN**2 * used.sum(axis=1)
    cover = flat.sum(axis=1) / (_COARSE_PEN * length + ends)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True), cover


def _pad(
    characters: Sequence[_Character],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns strokes `[C, S, P, 2]`, joints `[C, S, 3]`, used `[C, S]`."""
    shape = (len(characters), _MAX_STROKES)
    strokes = np.zeros((*shape, _NUM_POINTS, 2))
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


def _sample_hands(
    streams: Sequence[np.random.SeedSequence],
) -> types.SimpleNamespace:
    """Returns the habits of the drawers, each an array `[D, ...]`."""
    hands = []
    for stream in streams:
        rng = np.random.default_rng(stream)
        hands.append(
            {
                "slant": rng.normal(0.06, 0.13),
                "rotation": rng.normal(0.0, 0.05),
                "aspect": rng.normal(0.0, 0.09),
                "size": rng.uniform(0.74, 1.0),
                "pen": rng.uniform(1.15, 1.85),
                "smoothness": np.exp(rng.uniform(-0.7, 1.2)),
                "bow": rng.normal(0.0, 0.05),
                "unsteadiness": rng.uniform(0.014, 0.042),
                "sloppiness": rng.uniform(0.6, 1.4),
                "warp": rng.normal(0.0, 0.10, size=(3, 2)),
                "turn": rng.normal(0.0, 0.06, size=_MAX_STROKES),
                "stretch": rng.normal(0.0, 0.08, size=_MAX_STROKES),
            }
        )
    return types.SimpleNamespace(
        **{name: np.stack([hand[name] for hand in hands]) for name in hands[0]}
    )


def _draw_alphabet(
    stream: np.random.SeedSequence,
    num_characters: int,
    hands: types.SimpleNamespace,
    image_size: int,
) -> np.ndarray:
    """Returns `[C * D, image_size, image_size]` uint8 drawings."""
    design, motor = (np.random.default_rng(s) for s in stream.spawn(2))
    script = _sample_script(design)
    strokes, joints, used = _pad(
        _sample_characters(script, num_characters, design)
    )
    moved = _move_strokes(strokes, joints, hands, motor)
    # Strokes that are not there must not count in the extent of a drawing.
    there = used[:, np.newaxis, :, np.newaxis, np.newaxis]
    placed = _place(np.where(there, moved, moved[:, :, :1]), hands, motor)
    num_drawers = len(hands.pen)
    pen = hands.pen * np.exp(
        motor.normal(0.0, 0.05, size=(num_characters, num_drawers))
    )
    # Below a pixel the stroke would fade instead of getting thinner.
    width = np.maximum(pen * image_size / _REFERENCE_SIZE, 1.0)
    paths = _fit(
        placed.reshape(-1, *placed.shape[2:]), width.ravel(), image_size
    )
    return _render(
        paths, np.repeat(used, num_drawers, axis=0), width.ravel(), image_size
    )


def _move_strokes(
    strokes: np.ndarray,
    joints: np.ndarray,
    hands: types.SimpleNamespace,
    rng: np.random.Generator,
) -> np.ndarray:
    """Returns the strokes as each hand draws them, `[C, D, S, P, 2]`."""
    batch = (len(strokes), len(hands.pen), _MAX_STROKES)
    sloppiness = hands.sloppiness[:, np.newaxis]
    drawn = _bend_strokes(strokes, hands, rng)
    turn = hands.turn + rng.normal(0.0, 0.05, batch) * sloppiness
    stretch = hands.stretch + rng.normal(0.0, 0.07, batch) * sloppiness
    cos, sin = np.exp(stretch) * np.cos(turn), np.exp(stretch) * np.sin(turn)
    matrix = np.stack([cos, sin, -sin, cos], axis=-1).reshape(*batch, 2, 2)
    missed = rng.normal(0.0, 0.015, (*batch, 2)) * sloppiness[..., np.newaxis]
    return _rejoin(strokes, drawn @ matrix, joints, missed)


def _bend_strokes(
    strokes: np.ndarray,
    hands: types.SimpleNamespace,
    rng: np.random.Generator,
) -> np.ndarray:
    """Rounds, bows and wobbles the strokes of each hand, `[C, D, S, P, 2]`."""
    batch = (len(strokes), len(hands.pen), _MAX_STROKES)
    smoothing = _smoothing(hands.smoothness)[:, np.newaxis]  # [D, 1, P, P]
    drawn = smoothing @ strokes[:, np.newaxis]

    t = np.linspace(0.0, 1.0, _NUM_POINTS)[:, np.newaxis]
    chord = drawn[..., -1:, :] - drawn[..., :1, :]
    normal = chord[..., ::-1] * [-1.0, 1.0]
    bow = rng.normal(0.0, 0.03, batch) * hands.sloppiness[:, np.newaxis]
    bow = bow + hands.bow[:, np.newaxis]
    drawn = (
        drawn + bow[..., np.newaxis, np.newaxis] * np.sin(np.pi * t) * normal
    )

    modes = np.arange(_NUM_MODES)
    basis = np.cos(np.pi * modes * t) / (1.0 + modes)  # [P, K]
    extent = np.ptp(strokes, axis=2).max(axis=-1)  # [C, S]
    strength = (
        hands.unsteadiness[:, np.newaxis] * np.sqrt(extent)[:, np.newaxis]
    )
    weights = rng.normal(size=(*batch, _NUM_MODES, 2))
    return drawn + basis @ (weights * strength[..., np.newaxis, np.newaxis])


def _smoothing(smoothness: np.ndarray) -> np.ndarray:
    """Returns `[D, P, P]` averages along the stroke that keep its ends."""
    index = np.arange(_NUM_POINTS)
    to_end = np.minimum(index, index[::-1])
    scale = np.minimum(smoothness[:, np.newaxis], 0.05 + to_end / 2.0)
    distance = index[:, np.newaxis] - index
    kernel = np.exp(-0.5 * (distance / scale[..., np.newaxis]) ** 2)
    return kernel / kernel.sum(axis=-1, keepdims=True)


def _rejoin(
    ideal: np.ndarray,
    drawn: np.ndarray,
    joints: np.ndarray,
    missed: np.ndarray,
) -> np.ndarray:
    """Moves the drawn strokes so that they meet as the ideal ones do."""
    drawn = drawn.copy()
    which = np.arange(len(ideal))
    for s in range(1, _MAX_STROKES):
        parent, parent_point, own_point = joints[:, s].T
        offset = ideal[which, s, own_point] - ideal[which, parent, parent_point]
        target = drawn[which, :, parent, parent_point] + offset[:, np.newaxis]
        shift = target - drawn[which, :, s, own_point] + missed[:, :, s]
        drawn[:, :, s] += shift[:, :, np.newaxis]
    return drawn


def _place(
    drawn: np.ndarray,
    hands: types.SimpleNamespace,
    rng: np.random.Generator,
) -> np.ndarray:
    """Warps, slants, turns and scales whole drawings `[C, D, S, P, 2]`."""
    batch = drawn.shape[:2]
    x, y = drawn[..., 0], drawn[..., 1]
    squares = np.stack([x * x, x * y, y * y], axis=-1)  # [C, D, S, P, 3]
    warp = hands.warp + rng.normal(0.0, 0.08, size=(*batch, 3, 2))
    drawn = drawn + squares @ warp[:, :, np.newaxis]

    slant = hands.slant + rng.normal(0.0, 0.05, batch)
    angle = hands.rotation + rng.normal(0.0, 0.04, batch)
    aspect = np.exp(hands.aspect + rng.normal(0.0, 0.05, batch))
    size = hands.size * np.exp(rng.normal(0.0, 0.06, batch))
    zero = np.zeros(batch)
    stretch = np.array([[size * aspect, zero], [zero, size / aspect]])
    shear = np.array([[zero + 1.0, zero], [-slant, zero + 1.0]])
    turn = np.array(
        [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    )
    matrix = np.einsum("ijcd,jkcd,klcd->cdil", stretch, shear, turn)
    shift = rng.normal(0.0, 0.03, size=(*batch, 1, 1, 2))
    return drawn @ matrix[:, :, np.newaxis] + shift


def _fit(
    drawings: np.ndarray, width: np.ndarray, image_size: int
) -> np.ndarray:
    """Maps drawings `[M, S, P, 2]` to pixels, within a margin of the frame."""
    margin = (0.04 * image_size + width / 2.0 + 0.5)[:, np.newaxis]
    room = image_size - 2.0 * margin
    low, high = drawings.min(axis=(1, 2)), drawings.max(axis=(1, 2))
    shrink = np.minimum(1.0 / (high - low).max(axis=1, keepdims=True), 1.0)
    scale = shrink * room
    centre = image_size / 2.0 + scale * (low + high) / 2.0
    half = scale * (high - low) / 2.0
    centre = np.clip(centre, margin + half, image_size - margin - half)
    offset = centre - scale * (low + high) / 2.0
    return (
        drawings * scale[:, np.newaxis, np.newaxis]
        + offset[:, np.newaxis, np.newaxis]
    )


def _render(
    paths: np.ndarray, used: np.ndarray, width: np.ndarray, image_size: int
) -> np.ndarray:
    """Draws strokes with a round pen.

    Args:
        paths: `[M, S, P, 2]`, the strokes, pixels.
        used: `[M, S]`, which strokes are drawn.
        width: `[M]`, the width of the pen, pixels.
        image_size: Height and width of the images, pixels.

    Returns:
        `[M, image_size, image_size]`, uint8.
    """
    points = _even_points(paths, used)
    reach = width.max() / 2.0 + 0.5
    window = np.arange(int(np.ceil(2.0 * reach)) + 1)
    canvas = np.zeros((len(paths), image_size, image_size), np.float32)
    which = np.arange(len(paths))[:, np.newaxis, np.newaxis]
    edge = (width / 2.0 + 0.5).astype(np.float32)[:, np.newaxis, np.newaxis]
    # One point of every drawing at a time: no pixel occurs twice in a step.
    for point in points:
        corner = np.floor(point - reach).astype(int)
        corner = np.clip(corner, 0, image_size - len(window))
        pixels = corner[..., np.newaxis] + window  # [M, 2, window]
        squares = (pixels + 0.5 - point[..., np.newaxis]) ** 2
        squares = squares.astype(np.float32)
        distance = np.sqrt(squares[:, 1, :, np.newaxis] + squares[:, :1])
        where = (which, pixels[:, 1, :, np.newaxis], pixels[:, :1])
        canvas[where] = np.maximum(canvas[where], edge - distance)
    return np.round(255.0 * np.minimum(canvas, 1.0)).astype(np.uint8)


def _even_points(paths: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Returns points `[T, M, 2]` at most half a pixel apart on the strokes."""
    num_paths = len(paths)
    steps = np.linalg.norm(np.diff(paths, axis=2), axis=-1)
    # Lifting the pen, and strokes that are not there, have no length.
    drawn = np.zeros(paths.shape[:3])
    drawn[:, :, :-1] = steps * used[..., np.newaxis]
    lengths = drawn.reshape(num_paths, -1)
    ends = np.cumsum(lengths, axis=1)
    total = ends[:, -1:]
    num_points = int(np.ceil(2.0 * total.max()))
    target = (np.arange(num_points) + 0.5) / num_points * total
    # One search for all rows: each is moved to a range of its own.
    row = 2.0 * total.max() * np.arange(num_paths)[:, np.newaxis]
    index = np.searchsorted((ends + row).ravel(), (target + row).ravel())
    into = 1.0 - (ends.ravel()[index] - target.ravel()) / lengths.ravel()[index]
    flat = paths.reshape(-1, 2)
    points = flat[index] + into[:, np.newaxis] * (flat[index + 1] - flat[index])
    return points.reshape(num_paths, num_points, 2).swapaxes(0, 1)
