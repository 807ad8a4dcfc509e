import csv
import types

import numpy as np
import pytest
from PIL import Image
from PIL import ImageDraw

import vhe_tf
from tests.conftest import tiny_sizes
from tests.experiments.conftest import SHORT
from tests.experiments.conftest import commanded
from tests.experiments.conftest import failure_of
from tests.experiments.conftest import json_of
from tests.experiments.conftest import keys_of
from vhe_tf._utils import json_files
from vhe_tf.evaluation import Report
from vhe_tf.experiments import Evaluation
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import Run
from vhe_tf.experiments import data
from vhe_tf.experiments import train
from vhe_tf.experiments.header import header
from vhe_tf.experiments.own_images import files_checksum


def _read(*words):
    return train.read(["train", *map(str, words)], usage="Trains.")


@pytest.fixture(scope="module")
def table(image_folder, tmp_path_factory):
    """A table of 15 characters in 5 alphabets, and their columns."""

    def write(*columns):
        path = tmp_path_factory.mktemp("tables") / "labels.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", *columns])
            for image in sorted(image_folder.glob("*/[0-5].png")):
                character = image.parent.name
                alphabet = f"alphabet{int(character[-2:]) // 3}"
                known = {"character": character, "alphabet": alphabet}
                rows.writerow([image, *(known[name] for name in columns)])
        return path

    return write


def test_a_folder_of_images_is_enough(image_folder):
    arguments = _read(f"--images={image_folder}")
    assert arguments.experiment == Experiment(
        **vhe_tf.experiments.get("own_images").to_json()
    )
    assert arguments.experiment.init == "nearest"
    assert arguments.machine.data_dir == str(image_folder)
    assert arguments.run_dir == "runs/own_images"


def test_photographs_are_named(image_folder):
    arguments = _read("own_photographs", f"--images={image_folder}")
    assert arguments.experiment.images == "colour"
    assert arguments.experiment.dataset == "folder"


def test_a_table_of_one_column_is_enough(table):
    arguments = _read(f"--labels={table('character')}")
    assert arguments.experiment.dataset == "table"
    assert arguments.experiment.groups == ("character",)
    assert arguments.experiment.architecture == "pixel_cnn"


def test_the_column_of_the_split_is_no_grouping(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("image,letter,Split\n0.png,a,train\n")
    (tmp_path / "0.png").touch()
    experiment = _read(f"--labels={path}").experiment
    assert experiment.groupings == ("letter",)


def test_two_groupings_are_a_hierarchy(table):
    path = table("character", "alphabet")
    arguments = _read(f"--labels={path}", "--groupings=alphabet,character")
    experiment = arguments.experiment
    assert experiment.groups == ("alphabet", "character")
    assert experiment.class_group == "character"
    assert experiment.architecture == "alphabet"
    one = _read(f"--labels={path}", "--groupings=alphabet").experiment
    assert one.groups == ("alphabet",)


@pytest.fixture(scope="module")
def nested_folder(image_folder, tmp_path_factory):
    """A folder per alphabet with three folders of characters, 15 in all."""
    root = tmp_path_factory.mktemp("nested")
    for index, folder in enumerate(sorted(image_folder.iterdir())):
        alphabet = root / f"Alphabet {index // 3}"
        alphabet.mkdir(exist_ok=True)
        (alphabet / folder.name).symlink_to(folder)
    return root


def test_groupings_name_the_levels_of_a_folder(nested_folder, capsys):
    arguments = _read(f"--images={nested_folder}", "--groupings=script,letter")
    experiment = arguments.experiment
    assert experiment.architecture == "alphabet"
    splits = data.load_data(experiment, data_dir=arguments.machine.data_dir)
    data.report_what_was_found(experiment, splits)
    assert "15 classes (14 each): 2 train, 1 validation, 2 test by script" in (
        capsys.readouterr().out
    )
    assert splits.group == "letter"
    scripts = [
        name
        for part in (splits.train, splits.validation, splits.test)
        for name in (
            part.describe_group("script", group)
            for group in part.group_ids("script")
        )
    ]
    assert len(set(scripts)) == len(scripts) == 5
    assert len(splits.test.group_ids("letter")) == 6


def test_mistakes_in_the_flags_are_explained(image_folder, table):
    path = table("character", "alphabet")
    for words, message in (
        (["--images=nowhere"], "Received: --images=nowhere"),
        (["--images=grey"], "must be an existing folder"),
        (["--labels=nowhere.csv"], "Received: --labels=nowhere.csv"),
        ([f"--labels={path}"], "columns ['image', 'character', 'alphabet']"),
        (
            [f"--images={image_folder}", f"--labels={path}"],
            "Give either --images or --labels",
        ),
        ([f"--images={image_folder}", "--data_dir=x"], "--data_dir=x"),
        (
            [f"--images={image_folder}", "--shares=60,20,10"],
            "Received: --shares=60,20,10",
        ),
        (
            [f"--images={image_folder}", "--groupings=a,b,c"],
            "Received: --groupings=a,b,c ",
        ),
        (
            [f"--images={image_folder}", "--num_validation_groups=1"],
            "Received: --num_validation_groups=1 --dataset=folder",
        ),
        (
            [f"--images={image_folder}", "--final", "--shares=60,20,20"],
            "Received: --shares=60,20,20 --final",
        ),
        (
            [f"--images={image_folder}", "--oracle_epochs=2"],
            "Received: --oracle_epochs=2 --architecture=pixel_cnn",
        ),
        (
            ["quickstart", "--data_dir=x"],
            "Received: --data_dir=x --dataset=glyphs",
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            _read(*words)
        assert message in stop.value.code


@pytest.mark.parametrize(
    ("settings", "sizes", "found"),
    [
        ({}, (9, 3, 3), "9 train, 3 validation, 3 test; mean ink 0.1"),
        (
            {"shares": (40, 20, 40)},
            (6, 3, 6),
            "6 train, 3 validation, 6 test; mean ink 0.1",
        ),
        ({"final": True}, (15, 15, 15), "15 train; mean ink 0.1"),
    ],
)
def test_what_was_found_is_printed(
    settings, sizes, found, image_folder, capsys
):
    experiment = Experiment(dataset="folder", **settings)
    splits = data.load_data(experiment, data_dir=str(image_folder))
    data.report_what_was_found(experiment, splits)
    parts = (splits.train, splits.validation, splits.test)
    assert tuple(len(part.group_ids("character")) for part in parts) == sizes
    line = capsys.readouterr().out
    assert line.startswith("Found 210 images in 15 classes (14 each): ")
    assert found in line
    assert bool(splits.caveat) == experiment.final
    classes = [set(part.group_ids("character")) for part in parts]
    if not experiment.final:
        assert not set.intersection(classes[0], classes[1] | classes[2])
        assert not classes[1] & classes[2]


def test_images_without_a_label_are_of_no_class(image_folder, tmp_path, capsys):
    paths = sorted(image_folder.glob("*/*.png"))
    rows = [f"{path},{path.parent.name}" for path in paths[1:]]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["image,letter", f"{paths[0]},", *rows]))
    experiment = Experiment(dataset="table", groupings=("letter",))
    splits = data.load_data(experiment, data_dir=str(path))
    data.report_what_was_found(experiment, splits)
    line = capsys.readouterr().out
    assert line.startswith("Found 210 images in 15 classes (13 to 14 each): ")


def test_the_mean_ink_is_of_what_the_model_sees(tmp_path, capsys):
    for index in range(5):
        page = Image.new("L", (1000, 1000), 255)
        pen = ImageDraw.Draw(page)
        pen.line([(100, 200 + 50 * index), (900, 400), (200, 900)], 0, 8)
        (tmp_path / f"class{index}").mkdir()
        page.save(tmp_path / f"class{index}" / "0.png")
    experiment = Experiment(dataset="folder")
    splits = data.load_data(experiment, data_dir=str(tmp_path))
    data.report_what_was_found(experiment, splits)
    ink = float(capsys.readouterr().out.partition("mean ink ")[2][:4])
    assert ink == pytest.approx(splits.test.images.mean(), abs=0.02)
    assert ink > 0.04


def _folders(root, **num_images):
    for name, count in num_images.items():
        (root / name).mkdir()
        for index in range(count):
            (root / name / f"{index}.png").touch()
    return f"--images={root}"


def _rows(root, *rows, more=""):
    path = root / "labels.csv"
    path.write_text("\n".join([f"image,letter{more}", *rows]))
    return f"--labels={path}"


# Files of images are empty: they are not read before TensorFlow is imported.
@pytest.mark.parametrize(
    ("make", "flags", "message"),
    [
        (_folders, [], "no class folders"),
        (lambda root: _folders(root, a=2, b=0), [], "Received: .*/b', without"),
        (lambda root: _folders(root, a=1, b=1), [], "--final .*Received: 2 in"),
        (
            lambda root: _folders(root, a=1, b=1),
            ["--groupings=script,letter"],
            "Received: --groupings=script,letter",
        ),
        (lambda root: _rows(root, "0.png,a"), [], "row 2: '0.png', which"),
        (
            lambda root: _rows(root, "0.png,a"),
            ["--groupings=foo"],
            r"\['letter'\].*Received: --groupings=foo",
        ),
        (
            lambda root: _folders(root, a=1) and _rows(root, "a/0.png,a"),
            [],
            "--final .*Received: 1 in",
        ),
        (_rows, [], "Received: a header alone"),
        (
            lambda root: (
                _folders(root, a=2)
                and _rows(root, "a/0.png,1,x", "a/1.png,1,y", more=",script")
            ),
            ["--groupings=script,letter"],
            "'1' is in 'x' and in 'y'",
        ),
    ],
)
def test_names_of_files_are_checked_first(make, flags, message, tmp_path):
    with pytest.raises(SystemExit, match=message):
        _read(make(tmp_path), *flags)


def _own_data(kind, root):
    """Writes five classes of the same names; returns their flag."""
    root.mkdir()
    flag = _folders(root, **dict.fromkeys("abcde", 2))
    if kind == "table":
        return _rows(root, *(f"{name}/0.png,{name}" for name in "abcde"))
    return flag


def _began(run_dir, flag):
    """Leaves what a run does, once it trains on these data."""
    arguments = _read(flag, f"--run_dir={run_dir}")
    run = Run(run_dir, arguments.experiment)
    run.begin(data_dir=arguments.machine.data_dir)
    run.checkpoints.mkdir(exist_ok=True)
    (run.checkpoints / "ckpt-1.index").touch()


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_other_data_with_the_same_classes_do_not_resume_a_run(kind, tmp_path):
    first, other = (_own_data(kind, tmp_path / name) for name in ("x", "y"))
    run_dir = tmp_path / "run"
    _began(run_dir, first)
    (tmp_path / "y" / "b" / "0.png").write_bytes(b"another")
    with pytest.raises(SystemExit, match=r"other data, in .*/x.*--run_dir"):
        _read(other, f"--run_dir={run_dir}")
    _read(first, f"--run_dir={run_dir}")
    _read(other, f"--run_dir={tmp_path / 'new'}")


@pytest.mark.parametrize("kind", ["folder", "table"])
def test_data_that_moved_resume_a_run(kind, tmp_path):
    flag = _own_data(kind, tmp_path / "x")
    run_dir = tmp_path / "run"
    _began(run_dir, flag)
    (tmp_path / "x").rename(tmp_path / "y")
    moved = flag.replace("/x", "/y")
    _read(moved, f"--run_dir={run_dir}")
    (tmp_path / "y" / "a" / "0.png").write_bytes(b"changed")
    with pytest.raises(SystemExit, match=r"make '.*' a link"):
        _read(moved, f"--run_dir={run_dir}")
    (tmp_path / "x").symlink_to(tmp_path / "y")
    _read(moved, f"--run_dir={run_dir}")
    _read(flag, f"--run_dir={run_dir}")


def test_runs_that_knew_no_files_resume_after_a_move(tmp_path):
    flag = _own_data("folder", tmp_path / "x")
    run_dir = tmp_path / "run"
    _began(run_dir, flag)
    config = run_dir / "config.json"
    old = json_files.read_json(config)
    del old["provenance"]["files"]
    json_files.write_json(config, old)
    (tmp_path / "x").rename(tmp_path / "y")
    _read(flag.replace("/x", "/y"), f"--run_dir={run_dir}")


def test_records_that_moved_are_known_by_their_index(tmp_path):
    experiment = Experiment(dataset="records")
    assert files_checksum(experiment, str(tmp_path)) is None
    (tmp_path / "index.npz").write_bytes(b"one")
    one = files_checksum(experiment, str(tmp_path))
    (tmp_path / "index.npz").write_bytes(b"two")
    assert one not in (None, files_checksum(experiment, str(tmp_path)))


def test_few_classes_are_enough_for_a_run_on_all(tmp_path):
    assert _read(_folders(tmp_path, a=1), "--final").experiment.final


@pytest.mark.parametrize(
    ("final", "split", "measured"),
    [
        (False, "9 train, 3 validation, 3 test", "on unseen groups"),
        (True, "15, all of them", "on the training groups"),
    ],
)
def test_a_run_on_all_classes_says_so(
    final, split, measured, image_folder, tmp_path, capsys
):
    experiment = Experiment(dataset="folder", final=final)
    splits = data.load_data(experiment, data_dir=str(image_folder))
    run = Run(tmp_path, experiment)
    model = types.SimpleNamespace(
        count_params=lambda: 1,
        distribute_strategy=types.SimpleNamespace(num_replicas_in_sync=1),
    )
    episodes = [
        types.SimpleNamespace(data=part)
        for part in (splits.train, splits.validation)
    ]
    text = header(run, model, splits=splits, episodes=episodes)
    assert f"classes by character: {split}" in text
    train._say_what_was_made(
        train.Arguments(experiment, Evaluation(), train.Machine()),
        run,
        model,
        Report([]),
    )
    assert measured in capsys.readouterr().out


def test_training_on_all_classes_is_known_to_see_those_of_a_test():
    experiment = Experiment(dataset="folder")
    others = [
        ({}, False),
        ({"final": True}, True),
        ({"seed": 1}, True),
        ({"shares": (40, 20, 40)}, True),
    ]
    for settings, sees in others:
        trained = Experiment(dataset="folder", **settings)
        assert data.sees_test_classes(trained, experiment) == sees


def test_few_classes_are_told_of(image_folder, tmp_path):
    for index in range(3):
        (tmp_path / f"class{index}").symlink_to(
            image_folder / f"class{index:02d}"
        )
    few = Experiment(dataset="folder")
    with pytest.raises(ValueError, match=r"`final` trains on all.*Received: 3"):
        data.load_data(few, data_dir=str(tmp_path))
    all_of_them = Experiment(dataset="folder", final=True)
    splits = data.load_data(all_of_them, data_dir=str(tmp_path))
    assert len(splits.train.group_ids("character")) == 3


def test_an_unknown_column_is_told_of(table):
    experiment = Experiment(dataset="table", groupings=("drawer",))
    with pytest.raises(ValueError, match=r"among \['alphabet'\].*drawer"):
        data.load_data(experiment, data_dir=str(table("alphabet")))


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["table", "folder"])
def test_a_hierarchy_trains(kind, table, nested_folder, tmp_path):
    text = commanded(
        "train",
        f"--labels={table('alphabet', 'character')}"
        if kind == "table"
        else f"--images={nested_folder}",
        "--groupings=alphabet,character",
        f"--run_dir={tmp_path}",
        "--support_size=1-2",
        "--batch_size=4",
        "--epochs=1",
        "--steps_per_epoch=2",
        *SHORT,
    )
    assert "by alphabet; mean ink" in text
    assert "Initial weights: random. " in text
    model = vhe_tf.load_model(tmp_path / "best.keras")
    names = [latent.name for latent in model.latents]
    assert names == ["alphabet", "character", "element"]
    settings = json_of(tmp_path / "config.json")["experiment"]
    assert settings["groupings"] == ["alphabet", "character"]
    commanded("evaluate", tmp_path, "--num_tasks=1", "--joint_num_samples=2")
    assert "accuracy.2way_1shot_by_alphabet" in keys_of(
        tmp_path / "evaluation.json"
    )
    drawn = tmp_path / "drawn.png"
    image = next(nested_folder.glob("*/*/0.png"))
    text = commanded("draw", image, f"--model={tmp_path}", f"--out={drawn}")
    assert "samples of the same character." in text
    assert drawn.exists()


def test_from_an_array_to_samples():
    rng = np.random.default_rng(0)
    shape = (24, 28, 28, 1)
    images = np.uint8(rng.integers(99, 256, shape) * (rng.random(shape) < 0.1))
    names = [f"class {i // 4}" for i in range(24)]
    with tiny_sizes():
        model = vhe_tf.deconvolutional_vhe("small", image_shape=(28, 28, 1))
    # As in docs/own_images.md, which starts from a shipped model.
    data = vhe_tf.data.from_columns(images, {"character": names})
    episodes = vhe_tf.data.Episodes.for_model(
        model, data, batch_size=2, support_size=(1, 3)
    )
    model.compile(vhe_tf.optimizers.AveragingAdam(1e-3))
    model.fit(episodes, epochs=1, steps_per_epoch=1, verbose=0)
    samples = model.sample({"character": images[None, :2]}, seed=(0, 0))
    assert samples.shape == (1, 28, 28, 1)


def test_own_images_do_not_start_experiments_of_others(image_folder):
    said = failure_of("train", "omniglot", "dance", f"--images={image_folder}")
    assert "Name one experiment" in said
