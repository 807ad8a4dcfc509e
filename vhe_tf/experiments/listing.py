"""Lists the named experiments and the shipped models: `vhe-tf list`."""

from collections.abc import Sequence

from absl import flags

from vhe_tf.experiments import settings
from vhe_tf.experiments.registry import EXPERIMENTS
from vhe_tf.models.presets import presets

__all__ = ["main"]


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf list`."""
    settings.parse(argv, flags.FlagValues(), usage=__doc__ or "", words=False)
    print("Experiments (vhe-tf train NAME):")
    for name, experiment in EXPERIMENTS.items():
        steps = experiment.epochs * experiment.steps_per_epoch
        print(
            f"  {name:55} {experiment.dataset}, {experiment.size} "
            f"{experiment.architecture}, {experiment.objective}, "
            f"{steps:,} steps of {experiment.batch_size}"
        )
    print("\nModels (vhe_tf.load_model(NAME)):")
    for preset in presets().values():
        results = "; ".join(f"{k} {v:g}" for k, v in preset.results.items())
        print(
            f"  {preset.name:39} {preset.num_parameters:,} parameters, trained "
            f"on {preset.trained_on}; {results}"
            + ("" if preset.installed else "; weights: in the project's source")
        )
