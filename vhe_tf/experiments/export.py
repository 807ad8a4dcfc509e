"""Exports a trained model for TensorFlow Serving.

    vhe-tf export runs/omniglot/best.keras --out=saved_models/omniglot

Writes the next version, at first saved_models/omniglot/1, atomically. Try it
with the server for development: vhe-tf serve saved_models/omniglot

    vhe-tf export omniglot_pixel_cnn_small --out=portable --portable

Writes `encode`, `sample_encoded` and `log_likelihood_encoded` with noise in
place of seeds, for OpenVINO and converters to ONNX.
"""

import dataclasses
import importlib.util
from collections.abc import Sequence

from absl import flags

from vhe_tf._utils.progress import status_line
from vhe_tf.experiments import settings
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.paths import one_model
from vhe_tf.experiments.settings import setting

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Exporting(settings.Settings):
    """The arguments of `vhe-tf export`."""

    out: str = setting(
        dataclasses.MISSING,
        "The model's folder, which TensorFlow Serving watches. Its name is the "
        "name of the model.",
        path="new folder",
    )
    model: str | None = setting(
        None,
        "The .keras file, or the name of a shipped model; also the first "
        "argument.",
    )
    version: int | None = setting(
        None, "Default: one more than the largest that is there.", least=1
    )
    num_samples: int = setting(
        20,
        "Samples of the group latents in classification, fixed in the export.",
        least=1,
    )
    num_element_samples: int = setting(
        1, "Samples of z for each sample of c.", least=1
    )
    guidance: float | None = setting(
        None,
        "Guidance of the samples of a group. 0: none. Default: that of the "
        "model.",
        least=0.0,
    )
    best_of: int = setting(
        1,
        "Samples of a group per image that is returned: that from which the "
        "support is most likely.",
        least=1,
    )
    portable: bool = setting(
        False,
        "Whether to write the functions for other runtimes instead, with "
        "static shapes.",
    )
    batch_size: int = setting(1, "Rows of a portable export.", least=1)
    num_shots: int = setting(
        5, "Support images of a row of a portable export.", least=1
    )
    warmup: bool = setting(
        True,
        "Whether to write a request for each signature, which the server runs "
        "before it is ready. Needs vhe_tf[serving].",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        of_one = ("batch_size", "num_shots")
        of_other = ("version", "best_of", "warmup")
        self._reject_without_effect(
            "portable", *(of_other if self.portable else of_one)
        )


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf export`."""
    values = flags.FlagValues()
    settings.add_flags(values, Exporting, title="Export")
    words = settings.parse(argv, values, usage=__doc__ or "")
    with exit_on_user_error():
        given = Exporting(**settings.read_flags(values, Exporting))
        name = one_model(words, given.model)
        needed = given.warmup and not given.portable
        if needed and not importlib.util.find_spec("tensorflow_serving"):
            raise ImportError(
                "--warmup needs `tensorflow-serving-api`. Install "
                "'vhe_tf[serving]', or pass --nowarmup. Received: --warmup."
            )
        import_tensorflow()
        import vhe_tf
        from vhe_tf import serving

        with status_line("loading the model"):
            model = vhe_tf.load_model(name)
        print("Exporting (half a minute) ...", flush=True)
        shared = {
            "num_samples": given.num_samples,
            "num_element_samples": given.num_element_samples,
        }
        if given.portable:
            folder = serving.export_portable(
                model,
                given.out,
                batch_size=given.batch_size,
                num_shots=given.num_shots,
                sample_options={"guidance": given.guidance},
                **shared,
            )
        else:
            folder = serving.export(
                model,
                given.out,
                sample_options={
                    "guidance": given.guidance,
                    "best_of": given.best_of,
                },
                version=given.version,
                warmup=given.warmup,
                **shared,
            )
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    print(f"Made {folder} ({size / 2**20:.1f} MiB)")
