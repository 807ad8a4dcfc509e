"""Divergences and distributions that TFP lacks."""
