"""Serves a model for development: REST on this machine, and a page to draw on.

    vhe-tf serve omniglot_pixel_cnn_small
    vhe-tf serve saved_models/omniglot --port=8501

The first argument is the folder of an export, a .keras file, or the name of a
shipped model. The last two are exported to a temporary folder first, which
takes half a minute. Other arguments are those of vhe_tf.serving.local.
"""

import os
import pathlib
import tempfile
from collections.abc import Sequence

from vhe_tf.experiments.endings import mistakes_end_quietly
from vhe_tf.experiments.endings import quiet

__all__ = ["main"]


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf serve`."""
    arguments = list(argv[1:])
    if not arguments or {"--help", "-h"}.intersection(arguments):
        print((__doc__ or "").strip())
        raise SystemExit(0 if arguments else "error: name a model.")
    quiet()
    from vhe_tf.serving import local

    name = arguments.pop(0)
    if os.path.isdir(name):
        local.main([name, *arguments])
        return
    with tempfile.TemporaryDirectory() as folder:
        with mistakes_end_quietly():
            exported = _exported(name, pathlib.Path(folder))
        local.main([str(exported), *arguments])


def _exported(name: str, folder: pathlib.Path) -> pathlib.Path:
    import vhe_tf
    from vhe_tf.models import presets
    from vhe_tf.serving import export

    path = presets.model_path(name)
    versions = [f for f in path.parent.glob("[0-9]*") if f.is_dir()]
    if name in presets.PRESETS and versions:
        return path.parent
    model = vhe_tf.load_model(path)
    print("Exporting (half a minute) ...", flush=True)
    out = folder / (name if name in presets.PRESETS else path.parent.name)
    export(model, out, warmup=False)
    return out
