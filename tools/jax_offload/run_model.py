# mypy: disable-error-code="import-not-found"
"""Compares and times what export_model.py wrote, where there is JAX alone.

    python3 tools/jax_offload/run_model.py EXPORTED

Needs the packages jax, flatbuffers and numpy. Each program is compiled for the
device of this machine. A sample of binary pixels differs from TensorFlow's from
the first pixel on whose probability lies within rounding of its noise: the
share of the images that are equal is printed, and the largest difference of
the scores in nats. Seconds are the median of some calls, their result fetched.
EXPORTED/run_model.json holds the numbers.
"""

import argparse
import json
import pathlib
import time
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.export
import numpy as np

_MAX_CALLS = 20
_SECONDS = 10.0


def main(argv: Sequence[str] | None = None) -> None:
    """Runs every program for the device of this machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported", type=pathlib.Path)
    folder = parser.parse_args(argv).exported
    backend = jax.default_backend()
    platform = "cuda" if backend == "gpu" else backend
    with np.load(folder / "calls.npz") as file:
        arrays = dict(file)
    paths = sorted(
        folder.glob(f"*_*.{platform}"),
        key=lambda path: (path.stem.split("_")[0], _rows(path)),
    )
    if not paths:
        raise SystemExit(f"error: {folder} has no program for {platform}.")
    device = jax.devices()[0].device_kind
    print(f"{device}, JAX {jax.__version__}")
    found = []
    for path in paths:
        found.append(_measured(path, arrays))
        print("; ".join(f"{k} {v}" for k, v in found[-1].items()), flush=True)
        report = {"device": device, "jax": jax.__version__, "programs": found}
        text = json.dumps(report, indent=1) + "\n"
        (folder / "run_model.json").write_text(text, "utf-8")


def _rows(path: pathlib.Path) -> int:
    return int(path.stem.split("_")[1])


def _measured(
    path: pathlib.Path, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Returns what is measured of one program."""
    name, rows = path.stem.split("_")[0], _rows(path)
    names = ["weights", "support", "query", "seeds"]
    if name == "sample":
        names.remove("query")
    given = [
        arrays[each] if each == "weights" else arrays[each][:rows]
        for each in names
    ]
    given = jax.device_put(given)
    start = time.perf_counter()
    program = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
    compiled = program.lower(*given).compile()
    measured: dict[str, Any] = {
        "program": name,
        "rows": rows,
        "seconds to compile": round(time.perf_counter() - start, 1),
    }
    result = np.asarray(compiled(*given))
    wanted = arrays[f"{name}_expected"]
    count = min(len(result), len(wanted))
    off = np.abs(result[:count] - wanted[:count])
    if name == "sample":
        same = (off.reshape(count, -1) == 0).all(axis=1)
        measured["share of equal images"] = round(float(same.mean()), 4)
    else:
        measured["largest difference in nats"] = float(f"{off.max():.2g}")
    seconds = _seconds(lambda: np.asarray(compiled(*given)))
    measured["seconds per call"] = float(f"{seconds:.3g}")
    measured["rows per second"] = float(f"{rows / seconds:.3g}")
    return measured


def _seconds(call: Callable[[], Any]) -> float:
    times: list[float] = []
    while len(times) < 3 or (len(times) < _MAX_CALLS and sum(times) < _SECONDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


if __name__ == "__main__":
    main()
