"""The graph of latents as a table."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import keras
from tensorflow_probability import distributions as tfd

from vhe_tf.models.latents import Latent

__all__ = ["Node", "family_of", "graph_table"]

_HEADINGS = ("Variable", "Parents", "Per", "Shape", "p", "q", "Parameters")


@dataclasses.dataclass(frozen=True)
class Node:
    """The facts about one variable of a model.

    Attributes:
        event_shape: Tuple of integers.
        prior: String. The family of the distribution given the parents.
        posterior: String. The family of the posterior, `"-"` for images.
    """

    event_shape: tuple[int, ...]
    prior: str
    posterior: str


def family_of(distribution: tfd.Distribution) -> str:
    """Returns the name of the family of a distribution or of its pixels."""
    while isinstance(distribution, tfd.Independent):
        distribution = distribution.distribution
    return type(distribution).__name__.lstrip("_")


def graph_table(
    latents: Sequence[Latent],
    likelihood: keras.layers.Layer,
    *,
    nodes: Mapping[str, Node],
) -> str:
    """Formats the graph of latents, parents first and images last.

    Args:
        latents: Sequence of `Latent`s.
        likelihood: Keras layer.
        nodes: Mapping of strings to `Node`s. The node of each latent, and of
            the image, `"x"`.

    Returns:
        String of one line per variable below the headings.
    """
    rows = [_HEADINGS]
    for latent in latents:
        node = nodes[latent.name]
        rows.append(
            (
                latent.name,
                ", ".join(latent.parents) or "-",
                "element" if latent.per_element else "group",
                str(node.event_shape),
                node.prior,
                node.posterior,
                f"{latent.count_params():,}",
            )
        )
    node = nodes["x"]
    exclude = getattr(likelihood, "exclude", ())
    rows.append(
        (
            "x",
            ", ".join(v.name for v in latents if v.name not in exclude),
            "element",
            str(node.event_shape),
            node.prior,
            node.posterior,
            f"{likelihood.count_params():,}",
        )
    )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
