import contextlib
import importlib.util
import io
import re
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import vhe_tf
from tests.experiments.conftest import commanded
from tests.experiments.conftest import drawings
from tests.experiments.conftest import failure_of
from tests.experiments.conftest import json_of
from tests.experiments.conftest import keys_of
from tests.processes import output_of
from tests.tiny_run import tiny_model
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import Run
from vhe_tf.experiments import cli
from vhe_tf.experiments import evaluate
from vhe_tf.experiments import figures
from vhe_tf.models import loading

FEW = (
    "--num_tasks=1",
    "--num_groups=1",
    "--num_samples=2",
    "--joint_num_samples=2",
)


def test_a_model_is_measured_on_the_data_of_its_run(whole_run, tmp_path):
    """Without any flag that says where these are."""
    model = whole_run[0] / "best.keras"
    out = tmp_path / "new" / "report.json"
    text = commanded(
        "evaluate", model, f"--out={out}", *FEW, "--num_kl_batches=1"
    )
    keys = keys_of(out)
    assert keys[:2] == ["accuracy.3way_1shot", "accuracy.3way_5shot"]
    assert "training_kl.character" in keys
    assert f"Wrote {out}." in text
    metrics = json_of(whole_run[0] / "metrics.json")
    assert json_of(out)["groups"] == metrics["groups"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--shots=1,many", "Received: --shots=1,many"),
        ("--shots=0", "at least 1"),
        ("--split=lake", "--split has no effect"),
        ("--lake_runs=nowhere.zip", "--lake_runs must be an existing"),
        ("--kl_support_size=5", "needs --num_kl_batches"),
        ("--num_kl_batches=1 --kl_support_size=99", "at least 99 elements"),
        ("--style_transfer", "--style_transfer is for models"),
        ("--drawings --guidance=1", "--guidance is for a PixelCNN"),
        ("another.keras", "Name one model"),
        ("--model=another.keras", "Name one model"),
        ("--data_dir=/nowhere", "Received: --data_dir=/nowhere"),
    ],
)
def test_mistakes_are_explained_before_measuring(
    arguments, message, begun_run, tmp_path
):
    out = tmp_path / "new" / "report.json"
    said = failure_of(
        "evaluate",
        begun_run / "best.keras",
        f"--out={out}",
        *arguments.split(),
    )
    assert message in said
    assert not out.parent.exists()


def test_styles_are_redrawn_with_the_options_that_are_asked_for():
    splits = mock.Mock(image_size=(28, 28))
    splits.train.image_shape = (28, 28, 3)
    asked = evaluate.Measuring(
        style_transfer=True, num_tasks=3, guidance=0.5, best_of=2, seed=7
    )
    experiment = Experiment(
        dataset="glyphs", architecture="style", affine_copies=1
    )
    [found] = evaluate._style_transfer(asked, splits, experiment)
    assert found.options == {"guidance": 0.5, "best_of": 2}
    assert (found.num_tasks, found.seed) == (3, 7)
    assert found.groups == ("character", "style")


def test_images_of_another_size_are_rejected(tmp_path):
    loading.save_model(tiny_model(), tmp_path / "best.keras")
    said = failure_of("evaluate", tmp_path / "best.keras", "--dataset=glyphs")
    assert "(8, 8, 1). Received: (28, 28, 1)" in said


def test_the_kl_of_training_needs_the_settings_of_a_run(tmp_path):
    path = tmp_path / "best.keras"
    loading.save_model(tiny_model(), path)
    said = failure_of("evaluate", path, "--num_kl_batches=1")
    assert "no config.json beside" in said


def test_classes_that_were_trained_on_are_rejected(tmp_path):
    models = []
    for seed in (0, 1):
        run = Run(
            tmp_path / str(seed),
            Experiment(split="random1200", seed=seed),
        )
        run.begin()
        loading.save_model(tiny_model(), run.best)
        models.append(run.best)
    for arguments in (["--split=lake"], [f"--lake_runs={tmp_path}"]):
        said = failure_of("evaluate", models[0], *arguments)
        assert f"{models[0]} was trained" in said
    with pytest.raises(ValueError, match=r"Received: a run with .*split"):
        figures.draw_side_by_side(models, tmp_path / "grid.png")


def test_models_are_drawn_side_by_side(begun_run, tmp_path):
    out = tmp_path / "grid.png"
    model = begun_run / "best.keras"
    figures.draw_side_by_side([model, model], out, num_samples=2)
    with Image.open(out) as image:
        # Three test classes; 5 images, then 2 samples of each model.
        assert image.height > 3 * 3 * 30  # below headings
        assert image.width // 3 == 9 * 30 + 2 * 8
    other = tmp_path / "best.keras"
    loading.save_model(tiny_model(), other)
    with pytest.raises(ValueError, match=r"of shape \(8, 8, 1\)"):
        figures.draw_side_by_side([model, other], out)


def test_new_images_of_the_class_of_an_image_are_drawn(begun_run, tmp_path):
    [image_file] = drawings(tmp_path, num_classes=1).glob("*/3.png")
    out = tmp_path / "samples.png"
    commanded(
        "draw",
        image_file,
        f"--model={begun_run / 'best.keras'}",
        f"--out={out}",
        "--num_samples=3",
    )
    with Image.open(out) as image:
        assert image.width == 3 * (4 * 30 + 8)
        below = np.asarray(image.convert("L"))[-3 * 30 :]  # the headings
        shown = below[: 3 * 28 : 3, : 3 * 28 : 3]
    with Image.open(image_file) as image:
        np.testing.assert_array_equal(shown, np.asarray(image))


def test_images_are_classified_by_those_of_each_class(image_folder, begun_run):
    text = commanded(
        "classify",
        image_folder / "class04" / "0.png",
        f"--support={image_folder}",
        f"--model={begun_run / 'best.keras'}",
        "--num_samples=2",
    )
    *lines, last = text.splitlines()[1:]
    assert last == '"none of these" is not calibrated for this model.'
    lines = [line.rsplit(maxsplit=1) for line in lines]
    names = {name.strip() for name, _ in lines}
    assert names == {f"class{i:02d}" for i in range(15)}
    shares = [float(share.rstrip("%")) for _, share in lines]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(100, abs=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["draw"], "images, such as drawing.png"),
        (["draw", "no.png"], "Received: 'no.png'"),
        (["draw", __file__, "--model=no"], "--model must be a .keras"),
        (["classify", "--support=."], "images"),
        (["classify", "q.png"], "--support is required"),
        (["export", "--out=x"], "Name one model"),
        (["serve"], "Name one model"),
        (["serve", "no"], "MODEL must be"),
        (["evaluate", "no"], "MODEL must be"),
        (["train"], "Name one experiment"),
        (["dance"], "no command 'dance'"),
    ],
)
def test_mistakes_of_commands_are_explained(arguments, message):
    assert message in failure_of(*arguments)


def test_mistakes_are_found_before_tensorflow_is_imported(tmp_path):
    """In one process: a mistake of each kind, of each command."""
    mistakes = [
        "train quikstart",
        "train quickstart --epochs=0",
        "train quickstart --support_size=five",
        "train quickstart --init=nowhere",
        "train quickstart --run_dir=setup.py",
        "train quickstart --manual_dir=.",
        "train own_images",
        "train own_images --data_dir=nowhere",
        "train omniglot --data_dir=nowhere",
        "train quickstart --init=omniglot_deconvolutional_small",
        "train quickstart --init=omniglot_styles_small",
        "train own_photographs --data_dir=. --image_size=28x20 --symmetries=8",
        "evaluate nowhere",
        "evaluate omniglot_pixel_cnn_small --shots=one",
        "evaluate omniglot_pixel_cnn_small --lake_runs=nowhere",
        "evaluate omniglot_pixel_cnn_small --kl_support_size=5",
        "evaluate omniglot_pixel_cnn_small --data_dir=nowhere",
        "evaluate omniglot_pixel_cnn_small --dataset=folder",
        "evaluate omniglot_pixel_cnn_small --dataset=folder --data_dir=nowhere",
        "evaluate omniglot_pixel_cnn_small --dataset=folder --data_dir={flat}",
        "evaluate omniglot_pixel_cnn_small --dataset=table --data_dir={flat}",
        "evaluate omniglot_pixel_cnn_small --dataset=youtube_faces",
        "evaluate omniglot_pixel_cnn_small --dataset=glyphs --data_dir={flat}",
        "evaluate omniglot_pixel_cnn_small --pixels=colour",
        "evaluate omniglot_pixel_cnn_small --style_transfer",
        "evaluate omniglot_pixel_cnn_small --critics={flat} --drawings",
        "evaluate omniglot_pixel_cnn_small --best_of=2",
        "fit-prior omniglot_pixel_cnn_small --data_dir=nowhere",
        "draw nowhere.png",
        "draw setup.py --model=nowhere",
        "classify setup.py --support=nowhere",
        "export nowhere --out=x",
        "export omniglot_pixel_cnn_small --out=x --portable --version=2",
        "serve nowhere",
        "serve omniglot_pixel_cnn_small --port=99999",
        "serve omniglot_pixel_cnn_small --version=77",
        "serve omniglot_pixel_cnn_small --host=192.0.2.1",
        "reproduce --lake_runs=nowhere",
    ]
    (tmp_path / "0.png").touch()
    mistakes = [words.format(flat=tmp_path) for words in mistakes]
    program = (
        "import sys\n"
        "from vhe_tf.experiments import cli\n"
        "for words in sys.argv[1:]:\n"
        "    try:\n"
        "        cli.main(['vhe-tf', *words.split()])\n"
        "    except SystemExit as end:\n"
        "        print(end.code)\n"
        "    assert not {'tensorflow', 'keras'} & set(sys.modules), words\n"
    )
    done = output_of([sys.executable, "-c", program, *mistakes])
    assert done.returncode == 0, done.stdout
    said = done.stdout.splitlines()
    for words, line in zip(mistakes, said, strict=True):
        assert line.startswith("error: "), (words, line)
        assert not re.search(r"`\w+`", line), (words, line)


def test_help_begins_with_the_flags_that_are_required():
    text = commanded_help("classify")
    assert text.index("--support") < text.index("--model")
    assert text.count("Required.") == 1


def commanded_help(command):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        cli.main(["vhe-tf", command, "--help"])
    assert stop.value.code == 0
    return out.getvalue()


def test_experiments_are_listed():
    lines = commanded("list").splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert names[0] == "omniglot"
    assert {"table1_pixel_cnn_vhe_cpu", "omniglot_styles_small"} < set(names)


def test_commands_are_listed():
    text = commanded("--help")
    for command in ("train", "evaluate", "draw", "classify", "serve"):
        assert f"  {command} " in text


def test_a_shipped_model_has_a_name():
    model = vhe_tf.load_model("omniglot_pixel_cnn_small")
    assert model.image_shape == (28, 28, 1)


def test_a_package_for_warm_up_requests_is_asked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    error = failure_of("export", "omniglot_pixel_cnn_small", "--out=exported")
    assert error.endswith("Received: --warmup.")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("option", "folder"), [("--nowarmup", "1"), ("--portable", "encode")]
)
def test_a_model_is_exported(option, folder, begun_run, tmp_path):
    commanded(
        "export",
        begun_run / "best.keras",
        f"--out={tmp_path / 'exported'}",
        "--num_samples=2",
        option,
    )
    assert (tmp_path / "exported" / folder / "saved_model.pb").is_file()
