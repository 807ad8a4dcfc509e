"""The VHE, its latents, and the published architectures."""
