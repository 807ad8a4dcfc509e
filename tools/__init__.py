"""Tools around the package that are not part of it."""
