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
import socket
import sys
import tempfile
from collections.abc import Sequence

from absl import flags

from vhe_tf.experiments import settings
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.paths import one_model
from vhe_tf.experiments.settings import setting
from vhe_tf.models import presets
from vhe_tf.serving._saved_model import loadable_versions

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

    def check_address(self) -> None:
        """Checks that a server can listen there, before it loads a model.

        Raises:
            SettingsError: If it cannot.
        """
        if self.port >= 2**16:
            raise self._error(
                "`port` must be from 0 (any free port) to 65535.", "port"
            )
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            with socket.socket(family) as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                one.bind((self.host, self.port))
        except OSError as error:
            raise self._error(
                "`host` and `port` must be where this machine can listen: "
                f"{error.strerror}. Name others; port 0 is any free one.",
                "host",
                "port",
            ) from error


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
        export = _export_of(words)
        _check_version(given, export)
        given.check_address()
        import_tensorflow()
        from vhe_tf.serving import local

        local.serve(
            export or _exported(words[0], pathlib.Path(scratch)),
            **dataclasses.asdict(given),
        )
    # Threads that still answer would abort the end of the interpreter.
    sys.stdout.flush()
    os._exit(0)


def _export_of(words: Sequence[str]) -> pathlib.Path | None:
    """Returns the folder of the export that a model has, or None."""
    if len(words) == 1:
        folder = pathlib.Path(words[0]).expanduser()
        if loadable_versions(folder):
            return folder
    folder = presets.model_path(one_model(words, None)).parent
    is_shipped = words[0] in presets.PRESETS
    return folder if is_shipped and loadable_versions(folder) else None


def _check_version(given: Serve, export: pathlib.Path | None) -> None:
    known = loadable_versions(export) if export else []
    if given.version not in (None, *known):
        there = ", ".join(map(str, known)) or "none; leave it out"
        raise given._error(
            f"`version` must be one of the export: {there}.", "version"
        )


def _exported(name: str, scratch: pathlib.Path) -> pathlib.Path:
    """Exports a model; returns the folder."""
    import vhe_tf
    from vhe_tf.serving import export

    path = presets.model_path(name)
    model = vhe_tf.load_model(path)
    print("Exporting (half a minute) ...", flush=True)
    out = scratch / path.parent.name
    export(model, out, warmup=False)
    return out
