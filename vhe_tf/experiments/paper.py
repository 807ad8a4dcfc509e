"""The numbers of the paper, and the experiment beside each of them.

A cell is a number of the paper. A row is a model that is trained and measured
for one or more cells, at either of two budgets:

    gpu    the published size
    cpu    the small size and few steps: about an hour on two cores
"""

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

__all__ = [
    "ARCHITECTURES",
    "BUDGETS",
    "CELLS",
    "CHECKS",
    "FIGURES",
    "LAKE_MEASURE",
    "MEASURES",
    "OBJECTIVES",
    "PROTOCOLS",
    "ROWS",
    "TABLES",
    "Cell",
    "Check",
    "Figure",
    "Row",
]

BUDGETS = {
    "gpu": "the published size",
    "cpu": "the small size and few steps, far less than the paper's budget",
}


class Row(NamedTuple):
    """A model to train and to measure.

    Attributes:
        protocol: String. How it is trained and measured, a key of
            `PROTOCOLS`.
        experiments: Mapping from each budget to the name of an experiment.
        evaluate: Mapping from each budget to settings of `Measuring`. Empty if
            only the pictures of the training are wanted.
    """

    protocol: str
    experiments: Mapping[str, str]
    evaluate: Mapping[str, Mapping[str, Any]]


class Cell(NamedTuple):
    """A number of the paper.

    Attributes:
        table: String. The table, a key of `TABLES`.
        method: String. The row of that table.
        measure: String. A key of `MEASURES`.
        paper: String or None. The number as printed, without its unit. None if
            the paper has none.
        row: String or None. The key in `ROWS` of the model of ours. None for
            methods of others, which are not implemented here.
    """

    table: str
    method: str
    measure: str
    paper: str | None
    row: str | None


class Figure(NamedTuple):
    """A figure of the paper, made with our models.

    Attributes:
        name: String. The stem of its files in docs/results.
        caption: String. The caption.
        rows: Tuple of strings. The models that must be trained.
        picture: String or None. Which of the `pictures/` of the (only) model it
            is. None shows samples of the models side by side.
        others: Tuple of pairs of strings. Similar pictures of other models, in
            docs/, each with its caption.
    """

    name: str
    caption: str
    rows: tuple[str, ...]
    picture: str | None
    others: tuple[tuple[str, str], ...] = ()


class Check(NamedTuple):
    """The settings by which a shipped model is measured again.

    Attributes:
        results: Tuple of strings. Its files in docs/results, without ".json".
        evaluate: Mapping. Settings of `Measuring`.
    """

    results: tuple[str, ...]
    evaluate: Mapping[str, Any]


TABLES = {
    "1": "Table 1: KL of c and accuracy by objective",
    "2": "Table 2: accuracy, beside previous work",
    "3": "Table 3: joint NLL by architecture and objective",
    "4": "Table 4: joint NLL, beside previous work",
    "5": "Table 5: faces by architecture and objective",
    "lake": "The twenty one-shot runs of Lake et al. (2015)",
    "shots": "NLL of a new image, by shots",
}

MEASURES = {
    "training_kl.character": "KL of c, training set (nats)",
    "accuracy.20way_1shot": "20-way 1-shot accuracy (%)",
    "accuracy.20way_2shot": "20-way 2-shot accuracy (%)",
    "accuracy.20way_5shot": "20-way 5-shot accuracy (%)",
    "accuracy.20way_1shot_within_alphabet": (
        "20-way 1-shot accuracy within an alphabet (%)"
    ),
    "accuracy.20way_5shot_within_alphabet": (
        "20-way 5-shot accuracy within an alphabet (%)"
    ),
    "accuracy.20way_1shot_lake_runs": "accuracy in Lake's runs (%)",
    "joint_nll": "joint NLL (nats per image)",
    "conditional_nll.1shot": "NLL after 1 shot (nats)",
    "conditional_nll.2shot": "NLL after 2 shots (nats)",
    "conditional_nll.5shot": "NLL after 5 shots (nats)",
    "conditional_nll.10shot": "NLL after 10 shots (nats)",
    "conditional_nll.19shot": "NLL after 19 shots (nats)",
}
LAKE_MEASURE = "accuracy.20way_1shot_lake_runs"

ARCHITECTURES = {
    "deconvolutional": "deconvolutional",
    "pixel_cnn": "PixelCNN",
}
OBJECTIVES = {
    "neural_statistician": "Neural Statistician",
    "resample": "Resample (Eq. 19)",
    "rescale": "Rescale (Eq. 20)",
    "vhe": "VHE (Eq. 16)",
}

# KL of c on the training set in nats, 5-shot accuracy.
TABLE_1 = {
    ("deconvolutional", "neural_statistician"): ("31.34", "95.6"),
    ("deconvolutional", "resample"): ("25.74", "94.0"),
    ("deconvolutional", "rescale"): ("477.65", "95.3"),
    ("deconvolutional", "vhe"): ("452.47", "95.6"),
    ("pixel_cnn", "neural_statistician"): ("14.90", "66.0"),
    ("pixel_cnn", "resample"): ("0.22", "4.9"),
    ("pixel_cnn", "rescale"): ("506.48", "62.8"),
    ("pixel_cnn", "vhe"): ("268.37", "98.8"),
}

# 1-shot, 5-shot; the row of ours for each.
TABLE_2 = {
    "Generative Matching Networks": ("77.0", "91.0", None, None),
    "Neural Statistician": (
        "93.2",
        "98.1",
        "table1_deconvolutional_neural_statistician",
        "table1_deconvolutional_neural_statistician",
    ),
    "VHE": (
        "95.2",
        "98.8",
        "table2_pixel_cnn_vhe_1shot",
        "table1_pixel_cnn_vhe",
    ),
    "Matching Networks": ("93.8", "98.7", None, None),
    "Convnet with memory module": ("95.0", "98.6", None, None),
    "mAP-DLM": ("95.4", "98.6", None, None),
    "Model-Agnostic Meta-learning": ("95.8", "98.9", None, None),
    "Prototypical Networks": ("96.0", "98.9", None, None),
}
TABLE_2_WITHIN_ALPHABET = {
    "VHE": ("81.3", "90.3", "table2_pixel_cnn_vhe_alphabets"),
    "VHE, deconvolutional": (
        None,
        None,
        "table2_deconvolutional_vhe_alphabets",
    ),
}

TABLE_3 = {
    ("deconvolutional", "neural_statistician"): "102.84",
    ("deconvolutional", "resample"): "110.30",
    ("deconvolutional", "rescale"): "109.01",
    ("deconvolutional", "vhe"): "104.67",
    ("pixel_cnn", "neural_statistician"): "73.50",
    ("pixel_cnn", "resample"): "66.42",
    ("pixel_cnn", "rescale"): "71.37",
    ("pixel_cnn", "vhe"): "61.22",
}

TABLE_4: dict[str, tuple[str, str | None]] = {
    "DRAW": ("< 96.5", None),
    "Conv DRAW": ("< 91.0", None),
    "VLAE": ("89.83", None),
    "Generative Matching Networks": ("62.42", None),
    "Variational Homoencoder": ("61.22", "table3_pixel_cnn_vhe"),
}

# NLL per image, 200-way 1-shot, 5-shot.
TABLE_5 = {
    ("deconvolutional", "neural_statistician"): ("12512.4", "39.2", "49.0"),
    ("deconvolutional", "vhe"): ("12717.6", "37.2", "44.8"),
    ("pixel_cnn", "neural_statistician"): ("4229.8", "92.1", "98.5"),
    ("pixel_cnn", "vhe"): ("4091.3", "92.5", "98.9"),
}

# Not of the paper: what others reached in the same runs.
LAKE_RUNS: dict[str, tuple[str | None, str | None]] = {
    "Bayesian Program Learning": ("96.7", None),
    "people": ("95.5", None),
    "Siamese convnet": ("92.0", None),
    "convnet": ("86.5", None),
    "nearest neighbour of raw pixels": ("19 to 22", None),
    "VHE, PixelCNN": (None, "table2_pixel_cnn_vhe_alphabets"),
    "VHE, deconvolutional": (None, "table2_deconvolutional_vhe_alphabets"),
}

CONDITIONAL_SHOTS = (1, 2, 5, 10, 19)


def _cells() -> tuple[Cell, ...]:
    """Returns the cells of every table in their order."""
    cells = []
    for (architecture, objective), (kl, accuracy) in TABLE_1.items():
        method = f"{ARCHITECTURES[architecture]}, {OBJECTIVES[objective]}"
        row = f"table1_{architecture}_{objective}"
        cells += [
            Cell("1", method, "training_kl.character", kl, row),
            Cell("1", method, "accuracy.20way_5shot", accuracy, row),
        ]
    for method, (one, five, one_row, five_row) in TABLE_2.items():
        cells += [
            Cell("2", method, "accuracy.20way_1shot", one, one_row),
            Cell("2", method, "accuracy.20way_5shot", five, five_row),
        ]
    for method, (*values, row) in TABLE_2_WITHIN_ALPHABET.items():
        cells += [
            Cell("2", method, f"accuracy.20way_{n}shot_within_alphabet", v, row)
            for n, v in zip((1, 5), values, strict=True)
        ]
    for (architecture, objective), nll in TABLE_3.items():
        method = f"{ARCHITECTURES[architecture]}, {OBJECTIVES[objective]}"
        row = f"table3_{architecture}_{objective}"
        cells.append(Cell("3", method, "joint_nll", nll, row))
    cells += [
        Cell("4", method, "joint_nll", nll, row)
        for method, (nll, row) in TABLE_4.items()
    ]
    for (architecture, objective), (nll, one, five) in TABLE_5.items():
        method = f"{ARCHITECTURES[architecture]}, {OBJECTIVES[objective]}"
        row = f"table5_{architecture}_{objective}"
        one, five = f"{one} (200-way)", f"{five} (200-way 5-shot)"
        cells += [
            Cell("5", method, "joint_nll", nll, row),
            Cell("5", method, "accuracy.20way_1shot", one, row),
            Cell("5", method, "accuracy.20way_2shot", five, row),
        ]
    cells += [
        Cell("lake", method, LAKE_MEASURE, accuracy, row)
        for method, (accuracy, row) in LAKE_RUNS.items()
    ]
    cells += [
        Cell("shots", f"VHE, {label}", measure, None, f"table3_{name}_vhe")
        for name, label in ARCHITECTURES.items()
        for measure in (f"conditional_nll.{n}shot" for n in CONDITIONAL_SHOTS)
    ]
    return tuple(cells)


CELLS = _cells()

# The joint NLL of models for classification is not in the paper.
_ONE_GROUP = {"num_groups": 1, "joint_num_samples": 1}
_ACCURACY: dict[str, dict[str, Any]] = {
    budget: {
        "within": "",
        "num_tasks": num_tasks,
        "num_kl_batches": num_kl_batches,
        **_ONE_GROUP,
    }
    for budget, num_tasks, num_kl_batches in (
        ("gpu", 200, 200),
        ("cpu", 20, 50),
    )
}
_ALPHABETS: dict[str, dict[str, Any]] = {
    "gpu": {"num_tasks": 200, **_ONE_GROUP},
    "cpu": {"num_tasks": 20, **_ONE_GROUP},
}
_LIKELIHOOD: dict[str, dict[str, Any]] = {
    budget: {
        "shots": (),
        "within": "",
        "num_tasks": num_tasks,
        "joint_num_samples": num_samples,
    }
    for budget, num_tasks, num_samples in (("gpu", 50, 500), ("cpu", 20, 20))
}
# The public subset has three frames per video: two for a support.
_FACES: dict[str, dict[str, Any]] = {
    "gpu": {
        "shots": (1, 2),
        "within": "",
        "num_tasks": 200,
        "joint_num_samples": 500,
    },
    "cpu": {
        "shots": (1, 2),
        "within": "",
        "num_tasks": 10,
        "num_samples": 5,
        "num_groups": 100,
        "joint_num_samples": 20,
    },
}

PROTOCOLS = {
    "Random characters": "Training uses 1,200 random characters, of which 50 "
    "select the epoch; the test uses the other 423. Images are grey, 28x28, "
    "binarised each time that they are sampled in training and once for the "
    "test. 8 rotations and reflections are classes of their own, with 20 "
    "affine copies: |X| = 400. |D| = 5, and 1 for the model of the 1-shot "
    "accuracy. Tasks are sampled from all test characters. The predicted class "
    "has the largest log mean p(x | c) over samples of q(c; D), z by "
    "importance weighting. The KL of c is measured on the training characters, "
    "before any division.",
    "Within an alphabet": "Training uses Lake's background set, of which 50 "
    "characters select the epoch; the test uses the evaluation set, so that "
    "its alphabets and the characters of the twenty runs are unseen. Images "
    "are fixed and binary, with 8 rotations and reflections as classes and 20 "
    "affine copies: |X| = 400; |D| is 1 to 5. A task has 20 characters of one "
    "alphabet. In Lake's runs support and query are by different drawers: 400 "
    "queries, one task per run.",
    "Likelihood": "Training uses Lake's background set, of which 50 characters "
    "select the epoch; the test uses the evaluation set (659 characters, "
    "13,180 images), the split of Generative Matching Networks. Images are "
    "fixed, binary and 28x28, without augmentation: |X| = 20; |D| = 5. The "
    "joint NLL is estimated by importance weighting with q(c; X), X a whole "
    "character, and z by an inner importance weighting. It is an upper bound "
    "at any k.",
    "Faces": "Classes are videos of YouTube Faces; the people of the test are "
    "in no other part. Images are the central half of aligned "
    "frames, 40x40 RGB of 256 levels, with mirror images as classes of their "
    "own. The complete archive has one video of 48 frames per person: |X| = "
    "48, |D| = 5. Without it, the public subset has 1,154 videos of 347 "
    "people, three frames each: 16 affine copies of each frame make |X| = 48, "
    "|D| is 1 to 5, and no number is comparable with the paper's. The PixelCNN "
    "models the three higher bits given c and the lower bits given the higher "
    "ones, an exact likelihood of 256 levels. Its Neural Statistician, which "
    "diverges at the learning rate of the VHE, has a quarter of it. The joint "
    "NLL is that of the frames of a video without copies.",
    "Figure 7": "Training uses Lake's background set, a latent of characters "
    "and one of alphabets; each has a support of its own (Eq. 21).",
}


def _row(
    name: str, protocol: str, evaluate: Mapping[str, Mapping[str, Any]]
) -> tuple[str, Row]:
    experiments = {"gpu": name, "cpu": f"{name}_cpu"}
    return name, Row(protocol, experiments, evaluate)


ROWS: dict[str, Row] = dict(
    [
        *(
            _row(
                f"table1_{architecture}_{objective}",
                "Random characters",
                _ACCURACY,
            )
            for architecture, objective in TABLE_1
        ),
        _row(
            "table2_pixel_cnn_vhe_1shot",
            "Random characters",
            _ACCURACY,
        ),
        *(
            _row(
                f"table2_{architecture}_vhe_alphabets",
                "Within an alphabet",
                _ALPHABETS,
            )
            for architecture in ("pixel_cnn", "deconvolutional")
        ),
        *(
            _row(
                f"table3_{architecture}_{objective}",
                "Likelihood",
                _LIKELIHOOD,
            )
            for architecture, objective in TABLE_3
        ),
        *(
            (
                f"table5_{architecture}_{objective}",
                Row(
                    "Faces",
                    {
                        budget: f"youtube_faces_{architecture}_{objective}"
                        f"_videos_{size}"
                        for budget, size in (
                            ("gpu", "published"),
                            ("cpu", "small"),
                        )
                    },
                    _FACES,
                ),
            )
            for architecture, objective in TABLE_5
        ),
        (
            "figure7_alphabets",
            Row(
                "Figure 7",
                {
                    "gpu": "omniglot_alphabets_published",
                    "cpu": "omniglot_alphabets_small",
                },
                {},
            ),
        ),
    ]
)

FIGURES = (
    *(
        Figure(
            f"figure4_{architecture}",
            f"Figure 4, {label}: five support images of an unseen "
            "character, then 5-shot samples of each objective: "
            + ", ".join(
                name.partition(" (")[0] for name in OBJECTIVES.values()
            ),
            tuple(f"table1_{architecture}_{name}" for name in OBJECTIVES),
            None,
            (
                (
                    "docs/results/figure4_pixel_cnn_published_short.png",
                    "published size, 8,000 steps of 64 on a GPU, VHE 45,000",
                ),
                (
                    "docs/results/figure4_pixel_cnn_binarised_together.png",
                    "as cpu, but x and the same element of D share their "
                    "noise (Neural Statistician and Rescale)",
                ),
                (
                    "docs/mechanism_pixel_cnn.png",
                    "small models, 3,000 steps, fixed binary images; VHE, "
                    "Neural Statistician, Resample, Rescale",
                ),
            )
            if architecture == "pixel_cnn"
            else (),
        )
        for architecture, label in ARCHITECTURES.items()
    ),
    Figure(
        "figure5",
        "Figure 5: 1-shot support and samples, then 5-shot support and samples",
        ("table2_pixel_cnn_vhe_1shot",),
        "conditional.png",
        (
            (
                "docs/omniglot_pixel_cnn_conditional.png",
                "the shipped small PixelCNN VHE",
            ),
        ),
    ),
    Figure(
        "figure6",
        "Figure 6: support frames of videos of unseen people, then samples of "
        "each model of Table 5: deconvolutional Neural Statistician and VHE "
        "(means of p(x | c), where the paper shows samples), PixelCNN Neural "
        "Statistician and VHE (samples)",
        tuple(f"table5_{a}_{objective}" for a, objective in TABLE_5),
        None,
        (
            (
                "docs/youtube_faces_256_levels.png",
                "here without the frames, which are photographs of people, and "
                "in 128 colours; the PixelCNN VHE is the shipped one, with its "
                "guidance of 1",
            ),
        ),
    ),
    Figure(
        "figure7",
        "Figure 7: a support image and samples of the character; five "
        "characters and new ones of their alphabet",
        ("figure7_alphabets",),
        "levels.png",
    ),
)

# How `--check` measures the shipped models again, in saved_models/{key}: as the
# results were, or on fewer tasks and characters.
CHECKS = {
    "omniglot_pixel_cnn_small": Check(
        ("omniglot_pixel_cnn_small", "omniglot_pixel_cnn_small_within"),
        {"num_tasks": 3, "num_groups": 1, "joint_num_samples": 1},
    ),
    "omniglot_pixel_cnn_large_random1200": Check(
        ("omniglot_pixel_cnn_large_random1200",),
        {"within": "", "num_tasks": 3, "num_groups": 1, "joint_num_samples": 1},
    ),
    "omniglot_deconvolutional_small": Check(
        (
            "omniglot_deconvolutional_small",
            "omniglot_deconvolutional_small_all_characters",
        ),
        {"num_tasks": 6, "num_groups": 20, "joint_num_samples": 500},
    ),
    "omniglot_pixel_cnn_small_likelihood": Check(
        (
            "omniglot_pixel_cnn_small_likelihood",
            "omniglot_pixel_cnn_small_likelihood_conditional",
            "omniglot_pixel_cnn_small_likelihood_k500",
        ),
        {"shots": (), "within": "", "num_tasks": 5, "joint_num_samples": 20},
    ),
}
