import dataclasses
import pickle

import pytest
from absl import flags

from vhe_tf.experiments import Experiment
from vhe_tf.experiments import override
from vhe_tf.experiments import settings
from vhe_tf.experiments.endings import exit_on_user_error
from vhe_tf.experiments.registry import EXPERIMENTS


def test_json_and_back_is_the_same_experiment():
    for experiment in EXPERIMENTS.values():
        assert Experiment.from_json(experiment.to_json()) == experiment


def test_a_setting_of_another_name_is_rejected_with_the_nearest():
    with pytest.raises(ValueError, match=r"'batch_size'.* 'batchsize'\."):
        Experiment.from_json({"batchsize": 4})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"objective": "elbo"},
            "vhe.*Received: objective='elbo'",
        ),
        ({"batch_size": 0}, "`batch_size` must be at least 1.*batch_size=0"),
        ({"batch_size": 2.5}, "`batch_size` must be an integer.*2.5"),
        ({"epochs": True}, "`epochs` must be an integer.*True"),
        ({"support_size": (6, 2)}, r"`support_size`.*\(6, 2\)"),
        ({"support_size": 5}, "`support_size`.*Received: support_size=5"),
        ({"symmetries": 3}, "8. Received: symmetries=3"),
        ({"ema": 1.0}, "less than 1. Received: ema=1.0"),
        ({"size": "large"}, "pixel_cnn.*architecture='deconvolutional'"),
        (
            {"architecture": "pixel_cnn", "high_bits": 3},
            "photographs. Received: high_bits=3",
        ),
        (
            {
                "dataset": "youtube_faces",
                "architecture": "pixel_cnn",
                "num_levels": 8,
                "high_bits": 3,
            },
            "2 or more. Received: num_levels=8, high_bits=3",
        ),
        ({"dataset": "glyphs", "split": "lake"}, "Received: split='lake'"),
        ({"num_levels": 8}, "`num_levels` has no effect.*num_levels=8"),
        ({"group": "video"}, "`group` has no effect"),
        (
            {"images": "colour"},
            "folder.*Received: dataset='omniglot'",
        ),
        (
            {"dataset": "youtube_faces", "images": "grey"},
            "colour. Received: images='grey'",
        ),
        ({"architecture": "style"}, "affine_copies=20"),
        (
            {"architecture": "style", "affine_copies": 1, "images": "grey"},
            "Received: images='grey'",
        ),
        (
            {"architecture": "alphabet", "dataset": "records"},
            "omniglot, glyphs, folder, table.*'records'",
        ),
        ({"dataset": "table"}, "column.*Received: groupings="),
        ({"groupings": ("letter",)}, "`groupings` has no effect"),
        (
            {"dataset": "folder", "groupings": ("alphabet", "letter")},
            r"1 grouping.*groupings=\('alphabet', 'letter'\)",
        ),
        (
            {"dataset": "folder", "shares": (80, 20, 0)},
            r"`shares` must be.*\(80, 20, 0\)",
        ),
    ],
)
def test_settings_that_make_no_sense_are_rejected(wrong, message):
    with pytest.raises(ValueError, match=message):
        Experiment(**wrong)


def test_settings_of_the_data_have_the_defaults_of_their_data_set():
    folder = Experiment(dataset="folder")
    assert (folder.images, folder.image_size) == ("binary", (28, 28))
    photographs = Experiment(dataset="folder", images="colour")
    assert (photographs.image_size, photographs.num_levels) == ((40, 40), 256)
    faces = Experiment(dataset="youtube_faces")
    assert (faces.group, faces.class_group) == ("person", "person")
    assert Experiment(dataset="glyphs").split is None


@pytest.mark.parametrize(
    ("architecture", "groups"),
    [
        ("deconvolutional", ("character",)),
        ("alphabet", ("alphabet", "character")),
        ("style", ("character", "style")),
    ],
)
def test_an_architecture_has_its_groupings(architecture, groups):
    experiment = Experiment(architecture=architecture, affine_copies=1)
    assert experiment.groups == groups


def test_overriding_the_data_forgets_what_chose_the_earlier_ones():
    earlier = Experiment(split="random1200", images="grey", epochs=3)
    glyphs = override(earlier, dataset="glyphs")
    assert (glyphs.split, glyphs.images, glyphs.epochs) == (None, "grey", 3)
    faces = override(earlier, dataset="youtube_faces")
    assert (faces.images, faces.num_levels) == ("colour", 256)
    photographs = Experiment(dataset="folder", images="colour")
    assert override(photographs, dataset="records").images == "colour"
    assert override(photographs, dataset="glyphs").images == "binary"
    assert override(earlier, epochs=4) == dataclasses.replace(earlier, epochs=4)
    with pytest.raises(ValueError, match="split"):
        override(earlier, dataset="glyphs", split="lake")


def _flags(arguments, **options):
    values = flags.FlagValues()
    settings.add_flags(values, Experiment, title="Experiment", **options)
    settings.parse(["program", *arguments], values, usage="Trains.")
    return settings.read_flags(values, Experiment)


def test_a_flag_overrides_the_setting_of_its_name():
    given = _flags(
        [
            "--support_size=1-10",
            "--image_size=48x32",
            "--nojit_compile",
            "--learning_rate=0.5",
            "--objective=rescale",
        ],
        overrides=True,
    )
    assert given == {
        "support_size": (1, 10),
        "image_size": (48, 32),
        "jit_compile": False,
        "learning_rate": 0.5,
        "objective": "rescale",
    }


def test_flags_that_are_not_given_are_the_defaults():
    assert Experiment(**_flags([])) == Experiment()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batchsize=3", "batchsize.*batch_size"),
        ("--objective=elbo", "of vhe, .* Received: --objective=elbo"),
        ("--batch_size=0", "at least 1. Received: --batch_size=0"),
        ("--epochs=many", "an integer. Received: --epochs=many"),
        ("--learning_rate=fast", "a number. Received: --learning_rate=fast"),
        ("--learning_rate=nan", "Received: --learning_rate=nan"),
        ("--final=maybe", "true or false. Received: --final=maybe"),
        ("--support_size=many", "as 1-10. Received: --support_size=many"),
        ("--support_size=6-2", "Received: --support_size=6-2"),
        ("--image_size=48", "HEIGHTxWIDTH.* Received: --image_size=48"),
        ("--shares=a,b", "integers.* Received: --shares=a,b"),
        ("--pixels=blue", "--pixels must.* Received: --pixels=blue"),
        ("--num_levels=8", "Received: --num_levels=8 --dataset=omniglot"),
        ("--final", "--final has no effect.* Received: --final "),
        ("--dataset=table", "--groupings must.* Received: no --groupings"),
    ],
)
def test_a_flag_that_is_wrong_ends_the_program(argument, message):
    error = pytest.raises(SystemExit, match=f"(?s)error: .*{message}")
    with error as stop, exit_on_user_error():
        Experiment(**_flags([argument], overrides=True))
    # Python's words, for its values.
    assert not set("`'()").intersection(
        stop.value.code.partition("Received: ")[2].partition(". ")[0]
    )


def test_an_error_of_settings_can_be_pickled():
    error = settings.SettingsError("`seed` is wrong.", seed=-1)
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "`seed` is wrong. Received: seed=-1."
    assert again.in_flags() == error.in_flags()


def test_help_lists_each_flag_under_its_title(capsys):
    with pytest.raises(SystemExit) as stop:
        _flags(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("Trains.")
    assert text.index("Experiment:") < text.index("--dataset")
    for field in dataclasses.fields(Experiment):
        assert f"--{settings.flag_name(field)}" in text
