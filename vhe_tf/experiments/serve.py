"""Serves a model for development: REST on this machine, and a page to draw on.

    vhe-tf serve omniglot_pixel_cnn_small
    vhe-tf serve saved_models/omniglot_pixel_cnn_small --port=8502
    vhe-tf serve runs/quickstart/best.keras

MODEL is the folder of an export, a .keras file, the folder of a run, or the
name of a shipped model. If it has no export, one is made in a temporary folder
first, which takes half a minute. Use TensorFlow Serving in production.
"""

import dataclasses
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from absl import flags

from vhe_tf.experiments import settings
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.paths import one_model
from vhe_tf.experiments.settings import setting

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Serve(settings.Settings):
    """The arguments of `vhe-tf serve`."""

    port: int = setting(8501, "Port to listen on; 0: any free port.", least=0)
    host: str = setting(
        "127.0.0.1",
        "Address to listen on. By default only this machine can reach it.",
    )
    version: int | None = setting(
        None, "Version of the export. Default: the largest.", least=1
    )
    max_request_mib: float = setting(
        4.0, "Largest request in MiB.", least=0.001
    )


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf serve`."""
    values = flags.FlagValues()
    settings.add_flags(values, Serve, title="Server")
    words = settings.parse(argv, values, usage=__doc__ or "")
    with (
        exit_on_user_error(),
        tempfile.TemporaryDirectory() as scratch,
    ):
        given = Serve(**settings.read_flags(values, Serve))
        if len(words) != 1 or not _versions(pathlib.Path(words[0])):
            one_model(words, None)
        import_tensorflow()
        from vhe_tf.serving import local

        local.serve(
            _exported(words[0], pathlib.Path(scratch)),
            **dataclasses.asdict(given),
        )
    # Threads that still answer would abort the end of the interpreter.
    sys.stdout.flush()
    os._exit(0)


def _exported(name: str, scratch: pathlib.Path) -> pathlib.Path:
    """Returns the folder of an export of a model."""
    import vhe_tf
    from vhe_tf.models import presets
    from vhe_tf.serving import export

    if _versions(pathlib.Path(name)):
        return pathlib.Path(name)
    path = presets.model_path(name)
    if name in presets.PRESETS and _versions(path.parent):
        return path.parent
    model = vhe_tf.load_model(path)
    print("Exporting (half a minute) ...", flush=True)
    out = scratch / path.parent.name
    export(model, out, warmup=False)
    return out


def _versions(folder: pathlib.Path) -> list[pathlib.Path]:
    return [f for f in folder.glob("[0-9]*") if f.is_dir()]
