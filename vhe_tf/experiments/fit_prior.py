"""Fits the distribution that new classes are sampled from to a trained model.

    vhe-tf fit-prior runs/omniglot
    vhe-tf fit-prior omniglot_pixel_cnn_small --data_dir=DIR --out=new.keras

MODEL is a .keras file, the folder of a run, or the name of a shipped model. The
training data of its run are needed, which are used without augmentation. The
model that is written samples new classes better; its likelihoods are the same.
See vhe_tf.fit_prior.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from vhe_tf._utils.progress import status_line
from vhe_tf.experiments import settings
from vhe_tf.experiments.building import make_episodes
from vhe_tf.experiments.data import load_data
from vhe_tf.experiments.data import place_of_run
from vhe_tf.experiments.endings import exit_on_run_error
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.paths import beside_model
from vhe_tf.experiments.paths import one_model
from vhe_tf.experiments.run import record_of
from vhe_tf.experiments.settings import setting
from vhe_tf.models.presets import model_path

__all__ = ["main"]


@dataclasses.dataclass(frozen=True)
class Fitting(settings.Settings):
    """The arguments of `vhe-tf fit-prior`."""

    model: str | None = setting(
        None,
        "The .keras file, the folder of a run, or the name of a shipped model; "
        "also the first argument.",
    )
    out: str | None = setting(
        None,
        "The .keras file to write. Default: fitted.keras beside the model; of "
        "a shipped model, in the current folder.",
        path="new file",
    )
    data_dir: str | None = setting(
        None,
        "Folder of the data. Default: that of the model's run.",
        path="any",
    )
    num_steps: int = setting(500, "Number of batches of episodes.", least=1)
    seed: int = setting(0, "Random seed of the episodes.", least=0)


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf fit-prior`."""
    values = flags.FlagValues()
    settings.add_flags(values, Fitting, title="Fitting")
    words = settings.parse(argv, values, usage=__doc__ or "")
    with exit_on_user_error():
        given = Fitting(**settings.read_flags(values, Fitting))
        name = one_model(words, given.model)
        path = model_path(name)
        record = record_of(path)
        if record is None:
            raise FileNotFoundError(
                "The prior is fitted to the training classes of the model's "
                f"run, and there is no config.json beside {path}. Restore the "
                "file, or use vhe_tf.fit_prior."
            )
        out = pathlib.Path(given.out or beside_model(name, "fitted.keras"))
        data_dir = place_of_run(
            given.data_dir, record=record, experiment=record.experiment
        )
        import_tensorflow()
        import vhe_tf
        from vhe_tf._utils import atomic_io

        with status_line("loading the model and the data"):
            model = vhe_tf.load_model(path)
            splits = load_data(record.experiment, data_dir=data_dir)
        # New classes are to look like those of the data, not mirrored.
        plain = dataclasses.replace(
            record.experiment, symmetries=1, affine_copies=1
        )
        episodes, _ = make_episodes(
            model, plain, splits=splits, seed=given.seed
        )
        atomic_io.check_room(out.parent)
    with exit_on_run_error():
        print(f"Fitting, {given.num_steps} steps ...", flush=True)
        fitted = vhe_tf.fit_prior(
            model, episodes, num_steps=given.num_steps, seed=given.seed
        )
        vhe_tf.save_model(fitted, out)
    print(f"Wrote {out}.")
