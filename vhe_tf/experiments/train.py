"""Trains, evaluates and pictures an experiment.

    vhe-tf train --images=DIR
    vhe-tf train --labels=labels.csv --groupings=alphabet,character
    vhe-tf train quickstart
    vhe-tf train omniglot_pixel_cnn_small --data_dir=DIR --epochs=30

Your own images: DIR has a folder per class, and labels.csv a row per image. By
default training starts from the shipped model nearest to them (--init).

Advice for your own images:
  letters           --symmetries=1, the default: a mirrored letter may be
                    another one. For signs without a direction 8 makes eight
                    classes of each, which helps where there are few.
  up to thousands   the default, --architecture=pixel_cnn: crisp samples
  of images
  more, or longer   --size=large on a GPU
  quick, blurred    --architecture=deconvolutional --batch_size=32
  photographs       vhe-tf train own_photographs --images=DIR; many thousands
                    of images, and a GPU
  two groupings     the deconvolutional model, from random weights;
                    --architecture=alphabet_pixel_cnn is the PixelCNN
  how long          the default, 2,400 steps, is ten minutes of one core. From
                    a shipped model, 750 and 3,000 steps gave accuracies whose
                    intervals overlap (docs/own_images.md). With --init=none
                    ask for more --epochs: the epoch with the best validation
                    ELBO is kept. With --final it is the ELBO of training
                    classes, which does not show overfitting: choose --epochs
                    without --final.

NAME is an experiment of the registry; flags override its settings. A run that
was interrupted resumes if the same command is started again, and ends with the
same weights.
"""

import contextlib
import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

from absl import flags

from vhe_tf._utils.interrupt import exit_on_interrupt
from vhe_tf._utils.json_files import write_json
from vhe_tf._utils.progress import status_line
from vhe_tf.experiments import settings
from vhe_tf.experiments.building import check_init
from vhe_tf.experiments.config import Evaluation
from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.config import override
from vhe_tf.experiments.data import OWN_IMAGES
from vhe_tf.experiments.data import check_options
from vhe_tf.experiments.data import check_place
from vhe_tf.experiments.endings import exit_on_run_error
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.own_images import OwnImages
from vhe_tf.experiments.registry import EVALUATIONS
from vhe_tf.experiments.registry import EXPERIMENTS
from vhe_tf.experiments.registry import get
from vhe_tf.experiments.run import Run
from vhe_tf.experiments.settings import SettingsError
from vhe_tf.experiments.settings import setting

if TYPE_CHECKING:
    from vhe_tf.data.datasets import DataSplits
    from vhe_tf.data.episodes import Episodes
    from vhe_tf.evaluation import Report
    from vhe_tf.experiments.pictures import Draw
    from vhe_tf.models.vhe import VHE

__all__ = [
    "Arguments",
    "Machine",
    "add_experiment_flags",
    "begun",
    "chosen_experiment",
    "finish",
    "load",
    "main",
    "measure",
    "read",
    "train",
]


_OWN_IMAGES = "own_images"  # the experiment


@dataclasses.dataclass(frozen=True)
class Machine(settings.Settings):
    """The machine settings of a run, which do not affect its outcome."""

    run_dir: str | None = setting(
        None, "Folder of the run, made if missing.", path="new folder"
    )
    data_dir: str | None = setting(
        None,
        "For omniglot and youtube_faces: a TensorFlow Datasets folder. By "
        "default TFDS_DATA_DIR or ~/tensorflow_datasets. For folder and "
        "records: the folder.",
        path="any",
    )
    manual_dir: str | None = setting(
        None,
        "For youtube_faces: the folder with aligned_images_DB.tar.gz. Not "
        "needed once it is prepared.",
        path="folder",
    )
    distribution: str = setting(
        "none",
        "Where to train: on one device; on all GPUs of this machine; or on "
        "those of all machines in the environment variable TF_CONFIG, with the "
        "same command on each and a --run_dir that all share. Results agree up "
        "to rounding.",
        choices=("none", "mirrored", "multi_worker"),
    )
    accumulation: int = setting(
        1,
        "Gradient-accumulation steps per device batch, which need less memory. "
        "Results agree up to rounding.",
        least=1,
    )


class Arguments(NamedTuple):
    """The arguments of `vhe-tf train`.

    Attributes:
        experiment: `Experiment`. The experiment to train.
        evaluation: `Evaluation`. How to measure it at the end.
        machine: `Machine`. Where to train it. `run_dir` is set.
    """

    experiment: Experiment
    evaluation: Evaluation
    machine: Machine

    @property
    def run_dir(self) -> str:
        """The folder of the run."""
        return self.machine.run_dir or ""


def read(
    argv: Sequence[str], *, usage: str, default: str | None = None
) -> Arguments:
    """Reads a command line.

    Args:
        argv: Strings. The name of the program, then the arguments.
        usage: String. Printed above the flags by `--help`.
        default: String. The experiment that flags start from if none is
            named; `--run_dir` is then required. Defaults to none.

    Raises:
        SystemExit: If `--help` is given, or an argument is invalid.
    """
    values = flags.FlagValues()
    settings.add_flags(values, OwnImages, title="Your own images")
    settings.add_flags(values, Machine, title="Run")
    add_experiment_flags(values, default=default)
    shown = default or _OWN_IMAGES
    settings.add_flags(
        values,
        Evaluation,
        title="Final evaluation",
        overrides=True,
        shown=(shown, EVALUATIONS.get(shown, Evaluation())),
    )
    words = settings.parse(argv, values, usage=usage)
    with exit_on_user_error():
        own = OwnImages(**settings.read_flags(values, OwnImages))
        name, experiment = chosen_experiment(
            values,
            words,
            default=_OWN_IMAGES if own.path else default,
            own=own,
        )
        machine = Machine(**settings.read_flags(values, Machine))
        if own.path:
            if machine.data_dir:
                raise ValueError(
                    "--images and --labels say where the data are; leave "
                    f"--data_dir out. Received: --data_dir={machine.data_dir}."
                )
            machine = dataclasses.replace(machine, data_dir=own.path)
        if machine.run_dir is None:
            if name == default and not own.path:
                raise ValueError(
                    "--run_dir is required: the folder of the run, made if "
                    "missing. Received: none."
                )
            machine = dataclasses.replace(machine, run_dir=f"runs/{name}")
        _check_data(experiment, machine)
        Run(machine.run_dir or "", experiment).check_data(machine.data_dir)
        measured = settings.read_flags(values, Evaluation)
        _check_effects(
            experiment, settings.read_flags(values, Experiment) | measured
        )
        evaluation = dataclasses.replace(
            EVALUATIONS.get(name, Evaluation()), **measured
        )
    return Arguments(experiment, evaluation, machine)


def _check_data(experiment: Experiment, machine: Machine) -> None:
    """Checks what flags say of the data, and of the weights to start from."""
    check_options(
        experiment,
        data_dir=machine.data_dir,
        manual_dir=machine.manual_dir,
    )
    if machine.manual_dir is None:  # else they are prepared in it
        check_place(experiment, machine.data_dir)
    check_init(experiment)


def _check_effects(experiment: Experiment, given: dict[str, Any]) -> None:
    """Checks that flags have an effect which other settings may take away."""
    validates_by_shares = experiment.dataset in OWN_IMAGES
    effects = {
        "num_validation_groups": (not validates_by_shares, "dataset"),
        "shares": (not experiment.final, "final"),
        "oracle_epochs": (len(experiment.groups) > 1, "architecture"),
    }
    for name, (has_effect, because) in effects.items():
        if name in given and not has_effect:
            received = {
                name: given[name],
                because: getattr(experiment, because),
            }
            raise SettingsError(
                f"`{name}` has no effect with this `{because}`. Leave it out.",
                **received,
            )


def add_experiment_flags(
    values: flags.FlagValues, *, default: str | None = None
) -> None:
    """Defines `--experiment`, and a flag for each setting of one.

    Args:
        values: `absl.flags.FlagValues`. Where to define the flags.
        default: String. Name of the experiment if none is named. Defaults to
            none.
    """
    flags.DEFINE_string(
        "experiment",
        None,
        "Name of the experiment whose settings the flags below override; "
        "`vhe-tf list` prints them. "
        + (f"Default: {default}." if default else "Also the first argument."),
        flag_values=values,
        module_name="Experiment",
    )
    shown = default or _OWN_IMAGES
    settings.add_flags(
        values,
        Experiment,
        title="Experiment",
        overrides=True,
        shown=(shown, get(shown)),
    )


def chosen_experiment(
    values: flags.FlagValues,
    words: Sequence[str],
    *,
    default: str | None = None,
    own: OwnImages | None = None,
) -> tuple[str, Experiment]:
    """Returns the experiment of a command line, and its name.

    Args:
        values: `absl.flags.FlagValues`. The parsed flags.
        words: Strings. The other arguments, among them maybe the name.
        default: String. The name if there is none. Defaults to none.
        own: `OwnImages` or None. The user's own images, if they are used.
            Defaults to none.

    Raises:
        ValueError: If there is not one name, or a setting is invalid.
    """
    given = settings.read_flags(values, Experiment)
    flagged = values["experiment"].value
    named = [*words, *([flagged] if flagged else [])] or [default]
    name = named[0]
    if len(named) > 1 or name is None:
        raise ValueError(
            "Name one experiment, such as quickstart (`vhe-tf list` prints "
            "them), or your own images by --images=DIR. "
            f"Received: {' '.join(map(str, named)) if name else 'none'}."
        )
    if name not in EXPERIMENTS and os.path.exists(name):
        flag = "--images" if os.path.isdir(name) else "--labels"
        raise ValueError(
            "There is no experiment of that name. To train on your own images "
            f"there, pass {flag}={name}. Received: {name!r}."
        )
    if own and own.path:
        given = own.experiment_settings(given)
    return name, override(get(name), **given)


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf train`."""
    train(read(argv, usage=__doc__ or ""))


@exit_on_interrupt()
def train(arguments: Arguments) -> Run:
    """Trains an experiment, or resumes it; then evaluates and pictures it.

    Returns:
        The run.

    Raises:
        SystemExit: If it cannot be done; the message says why.
    """
    experiment, _, machine = arguments
    with exit_on_user_error():
        run = Run(arguments.run_dir, experiment)
    import_tensorflow()
    from vhe_tf import callbacks
    from vhe_tf.experiments import building
    from vhe_tf.experiments import pictures

    callbacks.stop_at_once()  # outside of `fit`
    with exit_on_user_error():
        strategy = building.start(experiment, distribution=machine.distribution)
        splits = load(arguments, run)
        with status_line("building the model"), strategy.scope():
            model = building.build_model(experiment, splits)
            building.compile_model(
                model, experiment, accumulation=machine.accumulation
            )
        episodes = building.make_episodes(model, experiment, splits=splits)
        draw = pictures.painter(experiment, splits)
    with (
        exit_on_run_error(),
        begun(arguments, run, model=model, splits=splits, episodes=episodes),
    ):
        model.fit(
            episodes[0],
            validation_data=episodes[1],
            epochs=experiment.epochs,
            steps_per_epoch=experiment.steps_per_epoch,
            verbose=0,
            callbacks=[
                *building.monitors(experiment, run, splits=splits, draw=draw),
                callbacks.BestModel(run.best),
                callbacks.ProgressLine(),
                callbacks.ExactResume(run.checkpoints),
                callbacks.Preemption(),
            ],
        )
        finish(arguments, run, model=model, splits=splits, draw=draw)
    return run


def load(arguments: Arguments, run: Run) -> "DataSplits":
    """Loads the data, and checks that they have the classes of the run."""
    from vhe_tf.experiments import data

    with status_line("reading the data"):
        splits = data.load_data(
            arguments.experiment,
            data_dir=arguments.machine.data_dir,
            manual_dir=arguments.machine.manual_dir,
        )
    run.check_classes(splits.groups_checksum())
    data.report_what_was_found(arguments.experiment, splits)
    return splits


@contextlib.contextmanager
def begun(
    arguments: Arguments,
    run: Run,
    *,
    model: "VHE",
    splits: "DataSplits",
    episodes: "tuple[Episodes, Episodes]",
) -> Iterator[None]:
    """Writes the settings of the run, and locks its folder within.

    It prints what is trained, and where. If several workers train, only the
    chief does this.
    """
    from vhe_tf import distribute
    from vhe_tf.experiments.header import header

    if not distribute.is_chief(model.distribute_strategy):
        yield
        return
    data_dir = arguments.machine.data_dir
    if arguments.experiment.dataset in ("omniglot", "youtube_faces"):
        data_dir = data_dir or os.environ.get("TFDS_DATA_DIR")
    with run.locked():
        print(header(run, model, splits=splits, episodes=episodes), flush=True)
        run.begin(data_dir=data_dir)
        with status_line("preparing the episodes"):  # until `fit` shows more
            yield


def finish(
    arguments: Arguments,
    run: Run,
    *,
    model: "VHE",
    splits: "DataSplits",
    draw: "Draw",
) -> None:
    """Saves the last model; evaluates and pictures the best one.

    It prints what was made. If several workers train, only the chief does this.

    Args:
        arguments: `Arguments`. The arguments of the command.
        run: `Run`. The run.
        model: `VHE`. The model as trained.
        splits: `DataSplits`. The data.
        draw: Callable. Returns the pictures of a model by name.

    Raises:
        SystemExit: If a file cannot be written.
    """
    import vhe_tf
    from vhe_tf import distribute
    from vhe_tf import optimizers
    from vhe_tf import visualization
    from vhe_tf.models import loading

    strategy = model.distribute_strategy
    if not distribute.is_chief(strategy):
        return
    saving = status_line("saving the last model")
    with saving, exit_on_run_error(), optimizers.ema_weights(model):
        loading.save_model(model, run.last)
    with status_line("loading the best model"), exit_on_user_error():
        if distribute.has_several_machines(strategy):
            model = vhe_tf.load_model(run.best)  # the others are done
        else:
            with strategy.scope():
                model = vhe_tf.load_model(run.best)
    with exit_on_run_error():
        with status_line("pictures of the best model"):
            for name, grid in draw(model).items():
                visualization.save_png(
                    run.pictures / f"{name}.png", grid, ink=splits.ink
                )
        with status_line("final evaluation") as progress:
            report = measure(arguments, model, splits=splits, progress=progress)
        write_json(run.metrics, report.to_json())
    _say_what_was_made(arguments, run, model, report)


def measure(
    arguments: Arguments,
    model: "VHE",
    *,
    splits: "DataSplits",
    progress: Callable[[str], None],
) -> "Report":
    """Returns the measurements of a model on the test groups."""
    from vhe_tf import evaluation as measuring

    experiment, evaluation, _ = arguments
    group, seed = experiment.class_group, experiment.seed
    more: list[measuring.Evaluator] = []
    if len(experiment.groups) > 1:
        more.append(measuring.Probes(splits.test, group=group))
    if experiment.architecture == "style":
        more.append(
            measuring.StyleTransfer(
                splits, epochs=evaluation.oracle_epochs, seed=seed
            )
        )
    if experiment.has_alphabets:
        outer, inner = experiment.groups
        more.append(
            measuring.NewGroups(
                splits.test,
                groups=(outer, inner),
                epochs=evaluation.oracle_epochs,
                seed=seed,
            )
        )
    report = measuring.evaluate(
        model,
        splits.test,
        group=group,
        settings=measuring.EvaluationSettings(
            num_tasks=evaluation.num_test_tasks,
            num_groups=evaluation.num_test_groups,
            num_samples=evaluation.num_test_samples,
            seed=seed,
        ),
        more=more,
        progress=progress,
    )
    if splits.binarization == "none":
        report = report.in_bits(model.image_shape)
    return dataclasses.replace(report, caveat=splits.caveat)


def _say_what_was_made(
    arguments: Arguments, run: Run, model: "VHE", report: "Report"
) -> None:
    from vhe_tf.evaluation import summary_lines
    from vhe_tf.experiments import pictures

    margin = "\n" + " " * 17
    groups = "the training" if arguments.experiment.final else "unseen"
    print(f"""
Made in {run.folder}:
  best.keras     the model ({model.count_params():,} parameters)
  metrics.json   measurements on {groups} groups:""")
    for line in summary_lines(report):
        print(f"                   {line}")
    print(f"""\
  pictures/      {margin.join(pictures.description(arguments.experiment))}
  tensorboard/   the run over time
Next:""")
    bin_dir = os.path.dirname(sys.executable)
    if shutil.which("vhe-tf") == os.path.join(bin_dir, "vhe-tf"):
        prefix = ""
    else:
        prefix = os.path.relpath(bin_dir) + os.sep
    commands = {f"vhe-tf serve {run.folder}": "a page to draw on"}
    if arguments.experiment.dataset in OWN_IMAGES:
        draw = f"vhe-tf draw IMAGE --model={run.folder}"
        commands[draw] = "more of what an image shows"
    else:
        commands["vhe-tf train --images=DIR"] = "on your own images"
    commands[f"tensorboard --logdir {run.folder}"] = "the run over time"
    width = max(map(len, commands)) + 4
    for command, purpose in commands.items():
        print(f"  {prefix}{command:{width}}{purpose}")
