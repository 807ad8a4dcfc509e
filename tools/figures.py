"""Draws the figures of the documents, as SVG files in docs/assets.

python -m tools.figures

The idea of the model, a diagram of each architecture, and the charts of
README.md and docs/results.md, whose numbers are those of docs/results. The
drawings are those of the embedded data set.
"""

import base64
import io
import json
import pathlib

import numpy as np
from PIL import Image

from vhe_tf.data import generate_glyphs
from vhe_tf.experiments import paper

ROOT = pathlib.Path(__file__).resolve().parents[1]
ASSETS = ROOT / "docs" / "assets"

INK, GREY, SUPPORT, QUERY, LATENT = (
    "#1c2b33",
    "#8a979d",
    "#00796b",
    "#d9600a",
    "#e3f1ef",
)

# The rows of the chart in README.md: label, published number, file, measure.
CHART = [
    ("20-way 1-shot", 95.2, "omniglot_pixel_cnn_large_random1200", "1shot"),
    ("20-way 5-shot", 98.8, "omniglot_pixel_cnn_large_random1200", "5shot"),
    (
        "1-shot within an alphabet",
        81.3,
        "omniglot_pixel_cnn_small_within",
        "1shot_within_alphabet",
    ),
    (
        "5-shot within an alphabet",
        90.3,
        "omniglot_pixel_cnn_small_within",
        "5shot_within_alphabet",
    ),
]


def text(
    x: float,
    y: float,
    content: str,
    *,
    size: int = 15,
    colour: str = INK,
    anchor: str = "middle",
    italic: bool = False,
) -> str:
    """Returns a line of text; `_` before a letter makes it a subscript."""
    parts = content.split("_")
    body = parts[0] + "".join(
        f'<tspan dy="4" font-size="{size * 0.75:g}">{p[0]}</tspan>'
        f'<tspan dy="-4">{p[1:]}</tspan>'
        for p in parts[1:]
    )
    style = ' font-style="italic"' if italic else ""
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" '
        f'text-anchor="{anchor}"{style}>{body}</text>'
    )


def circle(x: float, y: float, label: str, *, observed: bool = False) -> str:
    """Returns a variable of a graphical model."""
    fill = "#d5dadd" if observed else "#ffffff"
    return (
        f'<circle cx="{x}" cy="{y}" r="22" fill="{fill}" stroke="{INK}" '
        f'stroke-width="1.5"/>' + text(x, y + 5, label, italic=True)
    )


def box(
    x: float, y: float, width: float, height: float, lines: str, *, fill: str
) -> str:
    """Returns a box with centred lines of text, of which (x, y) is the centre.

    Args:
        x: Float. Horizontal centre, pixels.
        y: Float. Vertical centre, pixels.
        width: Float. Pixels.
        height: Float. Pixels.
        lines: String. One or more lines.
        fill: String. The colour.
    """
    shape = (
        f'<rect x="{x - width / 2}" y="{y - height / 2}" width="{width}" '
        f'height="{height}" rx="6" fill="{fill}" stroke="{INK}"/>'
    )
    rows = lines.splitlines()
    first = y + 5 - 9 * (len(rows) - 1)
    return shape + "".join(
        text(x, first + 18 * i, row, size=13) for i, row in enumerate(rows)
    )


def arrow(*points: tuple[float, float]) -> str:
    """Returns an arrow along points."""
    path = " ".join(f"{x},{y}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{INK}" '
        f'stroke-width="1.5" marker-end="url(#head)"/>'
    )


def plate(x: float, y: float, width: float, height: float, label: str) -> str:
    """Returns a plate of a graphical model, labelled at the upper right."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" '
        f'fill="none" stroke="{GREY}" stroke-width="1.5"/>'
        + text(x + width - 9, y + 17, label, size=12, anchor="end")
    )


def drawing(
    image: np.ndarray, x: float, y: float, *, size: float, colour: str = GREY
) -> str:
    """Returns a drawing of shape `[H, W, 1]`, ink 255, in a frame."""
    buffer = io.BytesIO()
    Image.fromarray(255 - image[..., 0]).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'<image x="{x}" y="{y}" width="{size}" height="{size}" '
        f'href="data:image/png;base64,{data}"/>'
        f'<rect x="{x}" y="{y}" width="{size}" height="{size}" fill="none" '
        f'stroke="{colour}" stroke-width="{1 if colour == GREY else 3}"/>'
    )


def save(name: str, width: int, height: int, *parts: str) -> None:
    """Writes a figure."""
    body = "\n".join(parts)
    (ASSETS / f"{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} '
        f'{height}" width="{width}" height="{height}" '
        'font-family="Helvetica, Arial, DejaVu Sans, sans-serif">\n'
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" '
        'markerWidth="8" markerHeight="8" orient="auto-start-reverse">'
        f'<path d="M0,0L10,5L0,10z" fill="{INK}"/></marker></defs>\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n'
        f"{body}\n</svg>\n",
        encoding="utf-8",
    )


def idea() -> None:
    """Draws what is encoded, what is decoded, and the objective."""
    data = generate_glyphs()
    labels = data.labels["character"]
    images = data.images[labels == labels[np.argmax(labels == 303)]][:16]
    support, query = (2, 4, 5, 11), 14
    parts = [
        text(115, 28, "class X: all drawings of a character", size=14),
        text(115, 262, "|X| drawings", size=13, colour=GREY),
    ]
    for i, image in enumerate(images):
        colour = SUPPORT if i in support else QUERY if i == query else GREY
        x, y = 20 + 48 * (i % 4), 44 + 50 * (i // 4)
        parts.append(drawing(image, x, y, size=42, colour=colour))
    parts += [
        *(
            drawing(images[i], 258, 52 + 34 * j, size=30, colour=SUPPORT)
            for j, i in enumerate(support)
        ),
        text(273, 210, "support D", size=14, colour=SUPPORT),
        arrow((296, 118), (322, 118)),
        box(374, 118, 100, 54, "encoder\nq(c; D)", fill=LATENT),
        arrow((424, 118), (446, 118)),
        circle(470, 118, "c"),
        text(470, 64, "what the class", size=12, colour=GREY),
        text(470, 80, "has in common", size=12, colour=GREY),
        arrow((492, 118), (518, 118)),
        box(574, 118, 110, 54, "decoder\np(x | c, z)", fill=LATENT),
        circle(574, 206, "z"),
        text(604, 211, "pose of one", size=12, colour=GREY, anchor="start"),
        text(604, 226, "drawing", size=12, colour=GREY, anchor="start"),
        arrow((574, 184), (574, 147)),
        arrow((629, 118), (660, 118)),
        drawing(images[query], 664, 84, size=68, colour=QUERY),
        text(698, 72, "another drawing x", size=14, colour=QUERY),
        f'<rect x="20" y="284" width="760" height="62" rx="8" '
        f'fill="{LATENT}"/>',
        text(
            400,
            310,
            "maximise   E [ log p(x | c, z) ]  "
            "\u2212  KL[ q(z; x) ‖ p(z | c) ]  "
            "\u2212  KL[ q(c; D) ‖ p(c) ] / |X|",
            size=17,
        ),
        text(
            400,
            334,
            "x is sampled from X, not from D (resampling), and the class pays "
            "for c once (rescaling)",
            size=13,
        ),
    ]
    save("idea", 800, 360, *parts)


def architecture(
    name: str, networks: list[str], *parts: str, height: int = 280
) -> None:
    """Draws a generative model beside the networks of its architecture."""
    first, last = 62, height - 36
    gap = (last - first) / (len(networks) - 1)
    save(
        name,
        660,
        height,
        text(135, 24, "generative model", size=13, colour=GREY),
        text(480, 24, "networks", size=13, colour=GREY),
        *parts,
        *(
            box(480, first + round(gap * i), 320, 44, network, fill=LATENT)
            for i, network in enumerate(networks)
        ),
    )


def architectures() -> None:
    """Draws the generative model and the posteriors of each architecture."""
    architecture(
        "deconvolutional",
        [
            "q(c; D): convolutions, mean over D",
            "q(z; c, x): convolutions and c",
            "p(z | c): dense layers",
            "p(x | c, z): transposed convolutions, Bernoulli",
        ],
        plate(40, 100, 190, 160, "elements"),
        plate(20, 36, 230, 236, "classes"),
        circle(135, 68, "c"),
        circle(80, 150, "z"),
        circle(165, 210, "x", observed=True),
        arrow((120, 85), (93, 131)),
        arrow((142, 90), (160, 187)),
        arrow((96, 166), (145, 198)),
    )
    architecture(
        "pixel_cnn",
        [
            "p(c): PixelCNN over a template, 28x28x8",
            "q(c; D): convolutions, mean over D",
            "q(z; c, x): pose; p(z) = N(0, I)",
            "p(x | c, z): PixelCNN given the posed template",
        ],
        plate(40, 100, 190, 160, "elements"),
        plate(20, 36, 230, 236, "classes"),
        circle(165, 68, "c"),
        circle(80, 150, "z"),
        box(165, 150, 78, 34, "STN(c, z)", fill="#ffffff"),
        circle(165, 220, "x", observed=True),
        arrow((165, 90), (165, 132)),
        arrow((102, 150), (125, 150)),
        arrow((165, 167), (165, 197)),
    )
    architecture(
        "alphabet",
        [
            "q(a; D_a): convolutions, mean over D_a",
            "p(c | a): dense layers",
            "q(c; D_c, a): convolutions and a",
            "z and x: as in the deconvolutional model",
        ],
        plate(50, 176, 180, 112, "elements"),
        plate(35, 100, 205, 194, "characters"),
        plate(20, 36, 230, 262, "alphabets"),
        circle(135, 68, "a"),
        circle(135, 134, "c"),
        circle(85, 212, "z"),
        circle(185, 240, "x", observed=True),
        arrow((135, 90), (135, 111)),
        arrow((122, 152), (98, 193)),
        arrow((145, 154), (176, 219)),
        arrow((107, 216), (163, 234)),
        height=300,
    )
    architecture(
        "style",
        [
            "q(c; D_c), p(c), z: as in the PixelCNN model",
            "q(s; D_s): convolutions, mean over D_s",
            "p(s) = N(0, I), 6 dimensions",
            "p(x | c, s, z): PixelCNN given STN(c, z) \u2297 s",
        ],
        plate(20, 48, 150, 220, "characters"),
        plate(92, 36, 160, 240, "styles"),
        circle(55, 96, "c"),
        circle(212, 96, "s"),
        circle(132, 120, "z"),
        circle(132, 215, "x", observed=True),
        arrow((67, 115), (115, 199)),
        arrow((202, 116), (148, 198)),
        arrow((132, 142), (132, 192)),
    )


def chart() -> None:
    """Draws published accuracies and ours, with 95% intervals."""
    left, unit = 190, 9.0  # pixels per percent, from 50%
    parts = [
        text(
            left,
            24,
            "accuracy on unseen characters (%)",
            size=13,
            anchor="start",
        ),
        box(540, 19, 12, 12, "", fill="#b9c3c7"),
        text(552, 24, "paper", size=13, anchor="start"),
        box(610, 19, 12, 12, "", fill=SUPPORT),
        text(622, 24, "ours", size=13, anchor="start"),
    ]
    for tick in (50, 60, 70, 80, 90, 100):
        x = left + unit * (tick - 50)
        parts += [
            f'<line x1="{x}" x2="{x}" y1="36" y2="250" stroke="#e2e6e8"/>',
            text(x, 268, str(tick), size=12, colour=GREY),
        ]
    for i, (label, published, name, measure) in enumerate(CHART):
        path = ROOT / "docs" / "results" / f"{name}.json"
        value = json.loads(path.read_text("utf-8"))["measures"][
            f"accuracy.20way_{measure}"
        ]
        ours = 100 * value["mean"]
        least, most = (100 * end for end in value["interval_95"])
        y, end = 44 + 52 * i, left + unit * (ours - 50)
        low, high = (left + unit * (at - 50) for at in (least, most))
        parts += [
            text(left - 10, y + 25, label, size=13, anchor="end"),
            f'<rect x="{left}" y="{y}" width="{unit * (published - 50):.1f}" '
            f'height="17" fill="#b9c3c7"/>',
            f'<rect x="{left}" y="{y + 19}" width="{end - left:.1f}" '
            f'height="17" fill="{SUPPORT}"/>',
            f'<path d="M{low:.1f},{y + 27.5}H{high:.1f}M{low:.1f},{y + 23}v9'
            f'M{high:.1f},{y + 23}v9" stroke="{INK}" stroke-width="1.5"/>',
            text(left + 8, y + 13, f"{published:.1f}", size=12, anchor="start"),
            text(
                left + 8,
                y + 32,
                f"{ours:.1f}",
                size=12,
                colour="#ffffff",
                anchor="start",
            ),
        ]
    save("results", 680, 280, *parts)


def table(name: str, measure: str, low: int, high: int) -> None:
    """Draws a table of docs/results.md: the paper's numbers and ours.

    Args:
        name: String. A key of `paper.TABLES`.
        measure: String. A key of `paper.MEASURES`.
        low: Integer. The left end of the axis, in the unit of the table.
        high: Integer. The right end.
    """
    left, scale = 250, 100 if measure.startswith("accuracy") else 1
    unit = 400 / (high - low)
    cells = [
        cell
        for cell in paper.CELLS
        if cell.table == name and cell.measure == measure and cell.row
    ]
    bottom = 48 + 30 * len(cells)
    parts = [
        text(left, 24, paper.MEASURES[measure], size=13, anchor="start"),
        f'<path d="M486,12v16" stroke="{QUERY}" stroke-width="3"/>',
        text(494, 24, "paper", size=13, anchor="start"),
        f'<circle cx="566" cy="20" r="4" fill="{SUPPORT}"/>',
        text(574, 24, "ours (cpu)", size=13, anchor="start"),
    ]
    for tick in range(low, high + 1, 20):
        x = left + unit * (tick - low)
        parts += [
            f'<path d="M{x:g},36V{bottom}" stroke="#e2e6e8"/>',
            text(x, bottom + 18, str(tick), size=12, colour=GREY),
        ]
    for i, cell in enumerate(cells):
        path = ROOT / "docs" / "results" / f"{cell.row}_cpu.json"
        value = json.loads(path.read_text("utf-8"))["measures"][measure]
        y = 54 + 30 * i
        least, ours, most, published = (
            f"{left + unit * (at - low):.1f}"
            for at in (
                scale * value["interval_95"][0],
                scale * value["mean"],
                scale * value["interval_95"][1],
                float(cell.paper or "nan"),
            )
        )
        parts += [
            text(left - 12, y + 5, cell.method, size=13, anchor="end"),
            f'<path d="M{published},{y - 10}v20" stroke="{QUERY}" '
            'stroke-width="3"/>',
            f'<path d="M{least},{y}H{most}M{least},{y - 5}v10M{most},{y - 5}'
            f'v10" stroke="{SUPPORT}" stroke-width="1.5"/>',
            f'<circle cx="{ours}" cy="{y}" r="4" fill="{SUPPORT}"/>',
        ]
    save(f"table{name}", 680, bottom + 30, *parts)


if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    idea()
    architectures()
    chart()
    table("1", "accuracy.20way_5shot", 0, 100)
    table("3", "joint_nll", 40, 120)
