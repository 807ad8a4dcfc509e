import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import vhe_tf

ROOT = pathlib.Path(vhe_tf.__file__).parents[1]
MODULES = sorted((ROOT / "vhe_tf").rglob("*.py"))
SOURCES = MODULES + sorted(
    path
    for folder in ("trainers", "benchmarks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
