"""Measures a trained model on groups that it has never seen.

    vhe-tf evaluate runs/quickstart/best.keras
    vhe-tf evaluate omniglot_pixel_cnn_small --data_dir=DIR

It writes few-shot accuracy, joint NLL and conditional NLL by shots, with 95%
intervals, to evaluation.json beside the model. MODEL is a .keras file, the
folder of a run, or the name of a shipped model, whose report is written to the
current folder. The data are those of its run, named in the config.json beside
it, unless flags name others. Lake's twenty one-shot runs are measured too if
--lake_runs names them, and the KL of Table 1 if --num_kl_batches asks for it.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from absl import flags

from vhe_tf._utils.json_files import write_json
from vhe_tf._utils.progress import status_line
from vhe_tf.experiments import settings
from vhe_tf.experiments.config import Experiment
from vhe_tf.experiments.config import override
from vhe_tf.experiments.data import OWN_IMAGES
from vhe_tf.experiments.data import check_unseen
from vhe_tf.experiments.data import load_data
from vhe_tf.experiments.data import place_of_run
from vhe_tf.experiments.data import warn_if_classes_changed
from vhe_tf.experiments.endings import exit_on_run_error
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.endings import import_tensorflow
from vhe_tf.experiments.paths import beside_model
from vhe_tf.experiments.paths import one_model
from vhe_tf.experiments.run import record_of
from vhe_tf.experiments.settings import SettingsError
from vhe_tf.experiments.settings import setting
from vhe_tf.models.presets import model_path

if TYPE_CHECKING:
    from vhe_tf.data.datasets import DataSplits
    from vhe_tf.data.episodes import Episodes
    from vhe_tf.evaluation import Evaluator
    from vhe_tf.evaluation import Report
    from vhe_tf.evaluation import Sampling
    from vhe_tf.models.vhe import VHE

__all__ = [
    "Measuring",
    "evaluate",
    "main",
    "training_episodes",
]

# The settings of the data that flags may override.
_DATA = ("dataset", "split", "images", "invert")

_NUM_UNCONDITIONAL = 1000


@dataclasses.dataclass(frozen=True)
class Measuring(settings.Settings):
    """The arguments of `vhe-tf evaluate`."""

    model: str | None = setting(
        None,
        "The .keras file, such as runs/x/best.keras, or the name of a shipped "
        "model; also the first argument.",
    )
    out: str | None = setting(
        None,
        "Where the report goes. Default: evaluation.json beside the model; of "
        "a shipped model, in the current folder.",
        path="new file",
    )
    data_dir: str | None = setting(
        None,
        "Folder of the data, or the CSV file of a table. Default: that of the "
        "model's run. For omniglot and youtube_faces: a TensorFlow Datasets "
        "folder where they are prepared.",
        path="any",
    )
    num_ways: int = setting(20, "Classes per task.", kind="integer", least=1)
    shots: tuple[int, ...] = setting(
        (1, 5),
        "Support images per class; fewer if a class has no more and a query. "
        "Empty: no classification.",
        kind="integers",
        least=1,
    )
    num_tasks: int = setting(
        200,
        "Number of tasks, with one query per class.",
        kind="integer",
        least=1,
    )
    within: str = setting(
        "alphabet",
        "Also classify within the groups of this grouping, if the data have "
        "it. Empty: not.",
    )
    num_samples: int = setting(
        20,
        "Samples from q(c; D) to classify; 20 in the paper.",
        kind="integer",
        least=1,
    )
    num_element_samples: int = setting(
        1, "Samples of z for each sample of c.", kind="integer", least=1
    )
    joint_num_samples: int = setting(
        500,
        "Samples of c in the joint NLL; 500 in the paper.",
        kind="integer",
        least=1,
    )
    refinement_steps: int = setting(
        0,
        "Gradient steps that refine q(c; X) for each group in the joint NLL; "
        "they lower its upper bound.",
        kind="integer",
        least=0,
    )
    num_groups: int | None = setting(
        None,
        "Number of groups in the joint NLL. Default: all.",
        kind="integer",
        least=1,
    )
    lake_runs: str | None = setting(
        None,
        "all_runs.zip of Lake et al., or its unpacked folder.",
        path="path",
    )
    num_kl_batches: int = setting(
        0,
        "Number of batches of training episodes on which to measure the KL of "
        "each group latent (Table 1). 0: none.",
        kind="integer",
        least=0,
    )
    kl_support_size: int | None = setting(
        None,
        "|D| for that KL, 5 in Table 1. Default: as in the model's run.",
        kind="integer",
        least=1,
    )
    open_set: bool = setting(
        False,
        "Also measure whether the model notices queries of none of the "
        "classes of a task.",
        kind="boolean",
    )
    drawings: bool = setting(
        False,
        "Also compare drawings by the model with drawings by people, as two "
        "networks judge them.",
        kind="boolean",
    )
    num_drawings: int = setting(
        20, "Drawings of each class.", kind="integer", least=5
    )
    critics: str | None = setting(
        None,
        "Folder with proto_net.npz and simclr.npz, the networks that judge "
        "drawings. Default: those of this package.",
        path="critics",
    )
    style_transfer: bool = setting(
        False,
        "For a model of styles: also redraw characters in other styles, as two "
        "networks judge them, in --num_tasks tasks.",
        kind="boolean",
    )
    guidance: float | None = setting(
        None,
        "Guidance of drawings and redrawings. Default: that of the model.",
        kind="float",
        least=0.0,
    )
    best_of: int = setting(
        1,
        "Samples per drawing or redrawing, of which the best is kept.",
        kind="integer",
        least=1,
    )
    max_decoded: int = setting(
        400,
        "Images that a device decodes at once. This bounds the memory.",
        kind="integer",
        least=1,
    )
    distribution: str = setting(
        "none",
        "Whether to measure on one device or on all GPUs of this machine. The "
        "numbers agree up to rounding.",
        choices=("none", "mirrored"),
    )
    seed: int = setting(
        0, "Random seed of the measurements.", kind="integer", least=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.drawings:
            of_both = () if self.style_transfer else ("guidance", "best_of")
            self._reject_without_effect(
                "drawings", "num_drawings", "critics", *of_both
            )
        if self.kl_support_size and not self.num_kl_batches:
            raise self._error(
                "`kl_support_size` needs `num_kl_batches`.",
                "kl_support_size",
                "num_kl_batches",
            )


def main(argv: Sequence[str]) -> None:
    """The command `vhe-tf evaluate`."""
    values = flags.FlagValues()
    settings.add_flags(values, Measuring, title="Measurements")
    settings.add_flags(
        values,
        Experiment,
        title="Data, by default those of the model's run",
        names=_DATA,
        overrides=True,
    )
    words = settings.parse(argv, values, usage=__doc__ or "")
    with exit_on_user_error():
        named = settings.read_flags(values, Measuring)
        model = one_model(words, named.get("model"))
        measuring = Measuring(**named | {"model": model})
        chosen = settings.read_flags(values, Experiment, names=_DATA)
    evaluate(measuring, **chosen)


def evaluate(measuring: Measuring, **data: Any) -> "Report":
    """Measures a model, writes the report and prints a summary.

    Args:
        measuring: `Measuring`. What to measure. `model` is set.
        **data: `dataset`, `split`, `images`, `invert`, if they are not those of
            the run.

    Returns:
        The report.

    Raises:
        SystemExit: If it cannot be done; the message says why.
    """
    # Everything that may be wrong comes first: measuring takes long.
    with exit_on_user_error():
        name = measuring.model or ""
        path = model_path(name)
        out = pathlib.Path(
            measuring.out or beside_model(name, "evaluation.json")
        )
        experiment, data_dir = _data_of(measuring, path, data)
    import_tensorflow()
    import vhe_tf
    from vhe_tf import distribute
    from vhe_tf._utils import atomic_io
    from vhe_tf.data.datasets import omniglot
    from vhe_tf.evaluation import summary_lines
    from vhe_tf.evaluation import tasks

    with exit_on_user_error():
        check_unseen(path, experiment)
        if measuring.lake_runs and record_of(path):
            # They are of characters of the evaluation set.
            check_unseen(path, Experiment(split="lake"))
        # Before TensorFlow does anything else.
        strategy = distribute.make_strategy(measuring.distribution)
        with status_line("loading the model"), strategy.scope():
            model = vhe_tf.load_model(path)
        if measuring.guidance:  # which not every model has
            model.sample_prior(1, seed=0, guidance=measuring.guidance)
        with status_line("reading the data"):
            splits = load_data(experiment, data_dir=data_dir)
        warn_if_classes_changed(
            path, experiment, classes=splits.groups_checksum()
        )
        tasks.check_shape(model, splits.test.image_shape)
        if measuring.lake_runs:
            omniglot.lake_runs(measuring.lake_runs)
        episodes = training_episodes(
            measuring, model, experiment=experiment, splits=splits
        )
        more = [
            *_drawings(measuring, splits, group=experiment.class_group),
            *_style_transfer(measuring, splits, experiment),
            *_new_groups(measuring, splits, experiment),
        ]
        atomic_io.check_room(out.parent)
    with exit_on_run_error():
        report = _measure(
            measuring,
            model,
            splits,
            group=experiment.class_group,
            episodes=episodes,
            more=more,
        )
        report = dataclasses.replace(report, model=str(path))
        write_json(out, report.to_json())
    for line in summary_lines(report):
        print(line)
    print(f"Wrote {out}.")
    return report


def _data_of(
    measuring: Measuring, path: pathlib.Path, data: dict[str, Any]
) -> tuple[Experiment, str | None]:
    """Returns the experiment whose test data are used, and their folder."""
    record = record_of(path)
    if measuring.num_kl_batches and record is None:
        raise FileNotFoundError(
            "--num_kl_batches measures on the training episodes of the model's "
            f"run, and there is no config.json beside {path}. Leave it out, or "
            "restore the file."
        )
    trained = record.experiment if record else Experiment()
    if data.get("dataset") in OWN_IMAGES:
        data = {"groupings": trained.groups, **data}  # its latents' names
    # The seed of the run selects the test classes.
    experiment = override(trained, **data)
    if record:
        _check_shape(trained, experiment)
    if measuring.style_transfer and experiment.architecture != "style":
        raise SettingsError(
            "`style_transfer` is for models of styles. Leave it out.",
            model=measuring.model,
            architecture=experiment.architecture,
        )
    return experiment, place_of_run(
        measuring.data_dir, record=record, experiment=experiment
    )


def _check_shape(trained: Experiment, tested: Experiment) -> None:
    """Checks that two experiments have images of one shape, if it is known."""
    there, here = (
        (of.image_size or (28, 28), of.images == "colour")
        for of in (trained, tested)
    )
    if "records" not in (trained.dataset, tested.dataset) and there != here:
        (height, width), is_colour = there
        raise SettingsError(
            "`dataset` must have images as the model's run, of "
            f"{height}x{width} pixels{', in colour' * is_colour}.",
            dataset=tested.dataset,
            images=tested.images,
            image_size=here[0],
        )


def training_episodes(
    measuring: Measuring,
    model: "VHE",
    *,
    experiment: Experiment,
    splits: "DataSplits",
) -> "Episodes | None":
    """Returns episodes of the groups that a model was trained on.

    Args:
        measuring: `Measuring`. What to measure.
        model: `VHE`. The model.
        experiment: `Experiment`. That of its run.
        splits: `DataSplits`. The data of its run.

    Returns:
        None if no KL is to be measured.

    Raises:
        ValueError: If groups are too small for the support.
    """
    from vhe_tf.experiments.building import make_episodes

    if not measuring.num_kl_batches:
        return None
    if measuring.kl_support_size:
        size = (measuring.kl_support_size, measuring.kl_support_size)
        experiment = dataclasses.replace(experiment, support_size=size)
    training, _ = make_episodes(
        model, experiment, splits=splits, seed=measuring.seed
    )
    return training


def _drawings(
    measuring: Measuring, splits: "DataSplits", *, group: str
) -> list["Evaluator"]:
    """Returns the evaluator of drawings, if it is asked for."""
    from vhe_tf import evaluation

    if not measuring.drawings:
        return []
    has_grouping = measuring.within in splits.test.labels
    return [
        evaluation.Drawings(
            evaluation.drawing_classes(
                splits.test,
                group=group,
                within=measuring.within if has_grouping else None,
            ),
            group=group,
            shots=measuring.shots or (1,),
            num_drawings=measuring.num_drawings,
            num_unconditional=_NUM_UNCONDITIONAL,
            critics=evaluation.DrawingCritics.load(measuring.critics),
            options=_sample_options(measuring),
            seed=measuring.seed,
        )
    ]


def _style_transfer(
    measuring: Measuring, splits: "DataSplits", experiment: Experiment
) -> list["Evaluator"]:
    """Returns the evaluator of style transfer, if it is asked for."""
    from vhe_tf import evaluation

    if not measuring.style_transfer:
        return []
    content, style = experiment.groups
    return [
        evaluation.StyleTransfer(
            splits,
            groups=(content, style),
            num_tasks=measuring.num_tasks,
            options=_sample_options(measuring),
            seed=measuring.seed,
        )
    ]


def _new_groups(
    measuring: Measuring, splits: "DataSplits", experiment: Experiment
) -> list["Evaluator"]:
    """Returns the evaluator of new characters of alphabets."""
    from vhe_tf import evaluation

    if not experiment.has_alphabets:
        return []
    outer, inner = experiment.groups
    return [
        evaluation.NewGroups(
            splits.test,
            groups=(outer, inner),
            options=_sample_options(measuring),
            seed=measuring.seed,
        )
    ]


def _sample_options(measuring: Measuring) -> dict[str, Any]:
    return {"guidance": measuring.guidance, "best_of": measuring.best_of}


def _open_set(
    measuring: Measuring,
    splits: "DataSplits",
    group: str,
    sampling: "Sampling",
) -> list["Evaluator"]:
    """Returns the evaluator of queries of no class, if it is asked for."""
    from vhe_tf import evaluation

    if not measuring.open_set:
        return []
    return [
        evaluation.OpenSet(
            splits.test,
            group=group,
            num_ways=measuring.num_ways,
            shots=measuring.shots or (1,),
            num_tasks=measuring.num_tasks,
            sampling=sampling,
        )
    ]


def _measure(
    measuring: Measuring,
    model: "VHE",
    splits: "DataSplits",
    *,
    group: str,
    episodes: "Episodes | None",
    more: "Sequence[Evaluator]" = (),
) -> "Report":
    from vhe_tf import evaluation

    named = (
        "shots",
        "num_tasks",
        "num_groups",
        "num_samples",
        "num_element_samples",
        "joint_num_samples",
        "refinement_steps",
        "max_decoded",
        "seed",
    )
    has_grouping = measuring.within in splits.test.labels
    settings = evaluation.EvaluationSettings(
        ways=(measuring.num_ways,),
        within=measuring.within if has_grouping else None,
        **{name: getattr(measuring, name) for name in named},
    )
    more = [*more, *_open_set(measuring, splits, group, settings.sampling)]
    if measuring.lake_runs:
        more.append(
            evaluation.LakeRuns(
                measuring.lake_runs, group=group, sampling=settings.sampling
            )
        )
    if episodes:
        more.append(
            evaluation.TrainingKL(
                episodes, num_batches=measuring.num_kl_batches
            )
        )
    with status_line("evaluation") as progress:
        report = evaluation.evaluate(
            model,
            splits.test,
            group=group,
            settings=settings,
            more=more,
            progress=progress,
        )
    if splits.binarization == "none":
        report = report.in_bits(model.image_shape)
    return dataclasses.replace(report, caveat=splits.caveat)
