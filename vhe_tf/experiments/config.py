"""Experiments as values: all that the outcome of a training run depends on."""

import dataclasses
from typing import Any

from vhe_tf.experiments.settings import Settings
from vhe_tf.experiments.settings import setting

__all__ = ["DATA", "Evaluation", "Experiment", "override"]

_SPLITS = ("lake", "lake_small1", "lake_small2", "random1200", "vinyals")

# The settings that choose the data, and their defaults, by data set. Others of
# `DATA` must be left None.
DATA = (
    "dataset",
    "split",
    "images",
    "invert",
    "groupings",
    "shares",
    "final",
    "image_size",
    "group",
    "num_levels",
    "num_styles",
    "copies",
)
_OWN: dict[str, Any] = {
    "groupings": None,
    "shares": (60, 20, 20),
    "final": False,
}
_OWN_DRAWINGS: dict[str, Any] = {
    "images": "binary",
    "invert": None,
    "image_size": (28, 28),
    **_OWN,
}
_OWN_PHOTOGRAPHS: dict[str, Any] = {
    "images": "colour",
    "image_size": (40, 40),
    "num_levels": 256,
    **_OWN,
}
_DRAWINGS: dict[str, dict[str, Any]] = {
    "omniglot": {"split": "lake", "images": "binary"},
    "glyphs": {"images": "binary"},
    "folder": _OWN_DRAWINGS,
    "table": _OWN_DRAWINGS,
    "records": {"images": "binary"},
}
_PHOTOGRAPHS: dict[str, dict[str, Any]] = {
    "folder": _OWN_PHOTOGRAPHS,
    "table": _OWN_PHOTOGRAPHS,
    "records": {"images": "colour", "num_levels": 256},
    "youtube_faces": {
        "images": "colour",
        "image_size": (40, 40),
        "group": "person",
        "num_levels": 256,
    },
}
_OF_ONE_GROUPING = ("deconvolutional", "pixel_cnn")
_STYLED: dict[str, dict[str, Any]] = {
    "omniglot": {"split": "lake", "num_styles": 30, "copies": 8},
    "glyphs": {"num_styles": 30, "copies": 8},
}


@dataclasses.dataclass(frozen=True)
class Experiment(Settings):
    """All that the outcome of a training run depends on.

    Settings of other data sets than `dataset` must be left None. Those of
    `dataset` that are left None get its defaults.

    Raises:
        SettingsError: By the constructor, if a setting is invalid, or does not
            go with the others.

    Example:
    >>> from vhe_tf.experiments import Experiment
    >>> experiment = Experiment(dataset="glyphs", epochs=2)
    >>> Experiment.from_json(experiment.to_json()) == experiment
    True
    """

    dataset: str = setting(
        "omniglot",
        "The data set: omniglot; the embedded glyphs; youtube_faces; or your "
        "own images: a folder, a table (a CSV file) or records of them.",
        choices=(
            "omniglot",
            "glyphs",
            "folder",
            "table",
            "records",
            "youtube_faces",
        ),
    )
    split: str | None = setting(
        None,
        "For omniglot: which characters to train and to test on.",
        choices=_SPLITS,
    )
    images: str | None = setting(
        None,
        "binary: fixed binary images (Tables 3 and 4). grey: grey images that "
        "are binarised whenever one is sampled (Tables 1 and 2). colour: "
        "photographs.",
        choices=("binary", "grey", "colour"),
        flag="pixels",
    )
    invert: bool | None = setting(
        None,
        "For a folder of drawings: swap light and dark, or, by --noinvert, do "
        "not. By default the borders of the images decide whether the page is "
        "light or dark, with a warning if any is dark or most are unclear.",
    )
    groupings: tuple[str, ...] | None = setting(
        None,
        "For your own images: the column of the classes, or, for "
        "--architecture=alphabet or alphabet_pixel_cnn, two columns, the outer "
        "one first, such as alphabet,character. For a folder, they name its "
        "levels. By default the only column of a table.",
    )
    shares: tuple[int, ...] | None = setting(
        None,
        "For your own images: the percentages of classes (of the outer groups, "
        "if there are two groupings) to train, validate and test on.",
        least=0,
    )
    final: bool | None = setting(
        None,
        "For your own images: train on all classes, once the settings, also "
        "--epochs, are chosen. Nothing is then measured on unseen classes; the "
        "ELBO that chooses best.keras is that of training classes.",
    )
    image_size: tuple[int, int] | None = setting(
        None,
        "For folder, table and youtube_faces: the size, HEIGHTxWIDTH. An "
        "image that is not square needs --symmetries=2 or 1.",
        kind="size",
        least=1,
    )
    group: str | None = setting(
        None,
        "For youtube_faces: whether a class is a person or a video. People are "
        "disjoint between training and test in either case.",
        choices=("person", "video"),
    )
    num_levels: int | None = setting(
        None,
        "For photographs: levels of a channel to which images are rounded. "
        "With few levels, such as 8, a PixelCNN learns to use c far sooner.",
        least=2,
    )
    num_styles: int | None = setting(
        None,
        "For the style architecture: the number of pens, each an ink and a "
        "nib, with which drawings are redrawn.",
        least=2,
    )
    copies: int | None = setting(
        None,
        "For the style architecture: in how many different styles each drawing "
        "is redrawn, all but the first as small affine maps of it.",
        least=1,
    )
    architecture: str = setting(
        "deconvolutional",
        "The architecture. alphabet (deconvolutional) and alphabet_pixel_cnn "
        "have a latent for alphabets above that of characters (Eq. 21), style "
        "one for styles beside it (Eq. 18).",
        choices=(
            "deconvolutional",
            "pixel_cnn",
            "alphabet",
            "alphabet_pixel_cnn",
            "style",
        ),
    )
    size: str = setting(
        "small",
        "small trains on two CPU cores. published has the sizes of the paper. "
        "large, for pixel_cnn only, is the small architecture for a GPU.",
        choices=("small", "published", "large"),
    )
    high_bits: int | None = setting(
        None,
        "For pixel_cnn of photographs: how many higher bits of a channel the "
        "decoder models given c. The lower bits depend on these alone.",
        least=1,
    )
    objective: str = setting(
        "vhe",
        "The objective to train with (Table 1).",
        choices=("vhe", "neural_statistician", "resample", "rescale"),
    )
    support_size: tuple[int, int] = setting(
        (5, 5),
        "|D|, or a range such as 1-10 from which it is sampled for each batch.",
        kind="range",
        least=1,
    )
    symmetries: int = setting(
        8,
        "1; 2, the image and its mirror image; 4 rotations; or 8 rotations and "
        "reflections. Each symmetry makes a new class.",
        least=1,
    )
    affine_copies: int = setting(
        20,
        "Number of elements that small affine maps make of each image.",
        least=1,
    )
    batch_size: int = setting(32, "Episodes per step.", least=1)
    epochs: int = setting(
        40,
        "Number of epochs. Each ends with a checkpoint. A resumed run may ask "
        "for more.",
        least=1,
    )
    steps_per_epoch: int = setting(500, "Training steps per epoch.", least=1)
    learning_rate: float = setting(
        1e-3,
        "Learning rate of Adam after warm-up. It decays to zero by a cosine.",
        least=0.0,
    )
    warmup_steps: int = setting(
        500, "Steps over which the learning rate increases.", least=0
    )
    clip_norm: float = setting(
        10.0, "Largest norm of the whole gradient, in nats.", least=1e-6
    )
    ema: float = setting(
        0.998,
        "Momentum of the EMA weights. After t steps it is at most (1 + t) / "
        "(10 + t). 0 turns the EMA off.",
        least=0.0,
    )
    init: str | None = setting(
        None,
        "The weights to start from: a .keras file or a shipped model of the "
        "same architecture; nearest, the shipped model with this architecture, "
        "size and shape of images, if there is one; or none, random weights.",
    )
    kl_warmup_steps: int = setting(
        0,
        "Steps over which the weight of the KL of the latent of characters (or "
        "people) increases to 1.",
        least=0,
    )
    precision: str = setting(
        "float32",
        "Keras dtype policy. The mixed ones need a GPU to be faster.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: bool | None = setting(
        None, "Compile the training step with XLA. Default: on GPUs."
    )
    seed: int = setting(
        0, "Random seed of everything, also of random splits.", least=0
    )
    num_validation_groups: int = setting(
        50,
        "Training groups (characters, alphabets, people) held out to select "
        "the best checkpoint. For a folder and a table, see --shares.",
        least=1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init == "none":
            object.__setattr__(self, "init", None)
        self._fill_data()
        self._check_own_images()
        low, high = self.support_size
        if low > high:
            raise self._error(
                "`support_size` must be an integer or a range, the smaller one "
                "first.",
                "support_size",
            )
        if self.symmetries not in (1, 2, 4, 8):
            raise self._error(
                "`symmetries` must be 1, 2, 4 or 8.", "symmetries"
            )
        height, width = self.image_size or (0, 0)
        if height != width and self.symmetries > 2:
            raise self._error(
                "Rotations need square images: set `symmetries` to 2, to "
                "mirror only, or to 1.",
                "image_size",
                "symmetries",
            )
        if self.ema >= 1:
            raise self._error("`ema` must be less than 1.", "ema")
        if self.size == "large" and self.architecture != "pixel_cnn":
            raise self._error(
                "`size` large is for `architecture` pixel_cnn alone.",
                "size",
                "architecture",
            )
        self._check_high_bits()
        if self.architecture == "style" and self.affine_copies != 1:
            raise self._error(
                "`affine_copies` would blur the inks of styles and must be 1; "
                "`copies` makes more elements of a drawing.",
                "affine_copies",
            )

    def _check_high_bits(self) -> None:
        if self.high_bits is None:
            return
        if self.architecture != "pixel_cnn" or self.num_levels is None:
            raise self._error(
                "`high_bits` is for `architecture` pixel_cnn of photographs.",
                "high_bits",
                "architecture",
                "images",
            )
        rest, missing = divmod(self.num_levels, 2**self.high_bits)
        if rest < 2 or missing:
            raise self._error(
                "`num_levels` must be 2 to the power `high_bits`, times an "
                "integer of 2 or more.",
                "num_levels",
                "high_bits",
            )

    def _check_own_images(self) -> None:
        levels = 2 if self.has_alphabets else 1
        if self.groupings and len(self.groupings) != levels:
            raise self._error(
                f"`groupings` must name {levels} grouping(s) for this "
                "`architecture`. More of them, or others than one within "
                "another, need a model of your own: see "
                "examples/own_structure.py.",
                "groupings",
                "architecture",
            )
        if self.dataset == "table" and not self.groupings:
            raise self._error(
                "`groupings` must name the column of the table with the "
                "classes.",
                "groupings",
            )
        if self.shares and (
            len(self.shares) != 3 or sum(self.shares) != 100 or 0 in self.shares
        ):
            raise self._error(
                "`shares` must be three percentages that sum to 100, to train, "
                "validate and test on, such as 60,20,20; `final` trains on all "
                "classes.",
                "shares",
            )

    def _fill_data(self) -> None:
        own = self._data_defaults()
        for name in DATA[1:]:
            value = getattr(self, name)
            if value is not None and name not in own:
                raise self._error(
                    f"`{name}` has no effect on these data. Leave it out.",
                    name,
                    "dataset",
                    "architecture",
                    *(["images"] if name != "images" else []),
                )
            if value is None and name in own:
                object.__setattr__(self, name, own[name])

    def _data_defaults(self) -> dict[str, Any]:
        known = _DRAWINGS
        if self.architecture == "style":
            known = _STYLED
        elif self.has_alphabets:
            known = {k: v for k, v in _DRAWINGS.items() if k != "records"}
        elif self.dataset == "youtube_faces" or self.images == "colour":
            known = _PHOTOGRAPHS
        if self.dataset not in known:
            raise self._error(
                f"`dataset` must be one of {', '.join(known)} for this "
                "`architecture` and these `images`.",
                "dataset",
                "architecture",
                "images",
            )
        own = known[self.dataset]
        if self.dataset == "youtube_faces" and self.images in (
            "binary",
            "grey",
        ):
            raise self._error("`images` of youtube_faces are colour.", "images")
        return own

    @property
    def has_alphabets(self) -> bool:
        """True if a latent of alphabets is above that of the classes."""
        return self.architecture in ("alphabet", "alphabet_pixel_cnn")

    @property
    def groups(self) -> tuple[str, ...]:
        """The groupings with a latent, the latents in the model's order.

        The first is held out for validation.
        """
        if self.groupings:
            return self.groupings
        if self.has_alphabets:
            return ("alphabet", "character")
        if self.architecture == "style":
            return ("character", "style")
        return (self.class_group,)

    @property
    def class_group(self) -> str:
        """The grouping whose groups are the classes of few-shot tasks."""
        if self.groupings:
            return self.groupings[-1]
        return self.group or (
            "person" if self.images == "colour" else "character"
        )


@dataclasses.dataclass(frozen=True)
class Evaluation(Settings):
    """The measurement of a run's model at its end.

    Example:
    >>> Evaluation(num_test_tasks=5).num_test_samples
    20
    """

    num_test_tasks: int = setting(
        50, "Number of few-shot tasks in the final evaluation.", least=1
    )
    num_test_groups: int = setting(
        50, "Number of test groups in the final joint NLL.", least=1
    )
    num_test_samples: int = setting(
        20, "Number of posterior samples in the final evaluation.", least=1
    )
    oracle_epochs: int = setting(
        10,
        "For the architectures of styles and alphabets: epochs that train the "
        "oracle classifier of characters or alphabets.",
        least=1,
    )


def override(experiment: Experiment, **settings: Any) -> Experiment:
    """Returns an experiment with other settings.

    Unlike `dataclasses.replace`, it forgets the settings of a data set if
    `dataset`, `architecture` or `images` make them meaningless.

    Args:
        experiment: `Experiment`. The experiment to start from.
        **settings: Any. Settings by name.

    Raises:
        SettingsError: As by `Experiment`.

    Example:
    >>> from vhe_tf.experiments import Experiment
    >>> override(Experiment(split="vinyals"), dataset="glyphs").split
    """
    chooses = ("dataset", "architecture", "images")
    if any(
        name in settings and settings[name] != getattr(experiment, name)
        for name in chooses
    ):
        kept = dict.fromkeys(DATA[1:]) | {
            name: getattr(experiment, name)
            for name in ("split", "images")
            if _applies(name, experiment, settings)
        }
        settings = kept | settings
    return dataclasses.replace(experiment, **settings)


def _applies(name: str, experiment: Experiment, settings: Any) -> bool:
    """Returns whether a setting of the data applies to other data too."""
    dataset = settings.get("dataset", experiment.dataset)
    architecture = settings.get("architecture", experiment.architecture)
    if name == "split":
        return bool(dataset == "omniglot")
    if experiment.images == "colour":
        return dataset in _PHOTOGRAPHS and architecture in _OF_ONE_GROUPING
    return dataset in _DRAWINGS and architecture != "style"
