"""Hands of drawers: how a person draws the characters of an alphabet."""

import types
from collections.abc import Sequence

import numpy as np

from vhe_tf.data.datasets.glyphs.characters import MAX_STROKES
from vhe_tf.data.datasets.glyphs.characters import NUM_POINTS
from vhe_tf.data.datasets.glyphs.characters import pad
from vhe_tf.data.datasets.glyphs.characters import sample_characters
from vhe_tf.data.datasets.glyphs.characters import sample_script
from vhe_tf.data.datasets.glyphs.pen import render

__all__ = ["draw_alphabet", "sample_hands"]

# Cosine modes of the motor noise along a stroke.
_NUM_MODES = 5
# The size in pixels at which pen widths are given.
_REFERENCE_SIZE = 28


def sample_hands(
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
                "turn": rng.normal(0.0, 0.06, size=MAX_STROKES),
                "stretch": rng.normal(0.0, 0.08, size=MAX_STROKES),
            }
        )
    return types.SimpleNamespace(
        **{name: np.stack([hand[name] for hand in hands]) for name in hands[0]}
    )


def draw_alphabet(
    stream: np.random.SeedSequence,
    num_characters: int,
    *,
    hands: types.SimpleNamespace,
    image_size: int,
) -> np.ndarray:
    """Returns `[C * D, image_size, image_size]` uint8 drawings."""
    design, motor = (np.random.default_rng(s) for s in stream.spawn(2))
    script = sample_script(design)
    strokes, joints, used = pad(
        sample_characters(script, num_characters, rng=design)
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
    return render(
        paths,
        np.repeat(used, num_drawers, axis=0),
        width=width.ravel(),
        image_size=image_size,
    )


def _move_strokes(
    strokes: np.ndarray,
    joints: np.ndarray,
    hands: types.SimpleNamespace,
    rng: np.random.Generator,
) -> np.ndarray:
    """Returns the strokes as each hand draws them, `[C, D, S, P, 2]`."""
    batch = (len(strokes), len(hands.pen), MAX_STROKES)
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
    batch = (len(strokes), len(hands.pen), MAX_STROKES)
    smoothing = _smoothing(hands.smoothness)[:, np.newaxis]  # [D, 1, P, P]
    drawn = smoothing @ strokes[:, np.newaxis]

    t = np.linspace(0.0, 1.0, NUM_POINTS)[:, np.newaxis]
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
    index = np.arange(NUM_POINTS)
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
    for s in range(1, MAX_STROKES):
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
