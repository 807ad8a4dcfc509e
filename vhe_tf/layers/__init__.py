"""Keras layers; those that end a network return distributions."""
