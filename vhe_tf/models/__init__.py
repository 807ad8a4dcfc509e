"""The VHE, its latents, and the published architectures."""

from vhe_tf._utils import backend  # noqa: F401
