import importlib
import json
import shutil
import subprocess
import sys

import pytest

from tests.trainers.conftest import ROOT
from tests.trainers.conftest import output_of
from tests.trainers.conftest import trainer


@pytest.fixture(scope="module", autouse=True)
def scripts():
    """Lets the scripts import their neighbours, as they do when they run."""
    sys.path.insert(0, str(ROOT / "trainers"))
    yield
    sys.path.remove(str(ROOT / "trainers"))


@pytest.fixture(scope="module")
def reproduce(scripts):
    return importlib.import_module("reproduce")


@pytest.fixture(scope="module")
def document(scripts):
    return importlib.import_module("results_document")


@pytest.fixture(scope="module")
def tables(scripts):
    return importlib.import_module("paper_tables")


ROW = "table3_pixel_cnn_vhe"
NLL = {
    "mean": 65.123,
    "half_width_95": 1.5,
    "num_trials": 659,
    "num_samples": 20,
    "num_element_samples": 3,
    "effective_sample_size": 1.46,
}


def a_result(row=ROW, *, budget="cpu", departure="", **measures):
    return {
        "rows": {row: departure},
        "budget": budget,
        "steps": 9000,
        "machine": "2 cores of a loom",
        "versions": {"Python": "3.11.7"},
        "commands": ["python train", "python measure"],
        "measures": measures or {"joint_nll": NLL},
    }


def lines_of(text, section, *words):
    """The lines of a table that contain all the words."""
    [part] = [p for p in text.split("\n## ") if p.startswith(section)]
    return [
        line
        for line in part.splitlines()
        if line.startswith("|") and all(word in line for word in words)
    ]


def test_a_cell_shows_everything_its_number_depends_on(document):
    text = document.render({f"{ROW}_cpu": a_result()}, ())
    [line] = lines_of(text, "Table 3", "PixelCNN, VHE", "| cpu |")
    assert [column.strip() for column in line.strip("|").split("|")] == [
        "PixelCNN, VHE (Eq. 16)",
        "joint NLL (nats an image)",
        "61.22",
        "<= 65.12",
        "± 1.50",
        "659 characters, k = 20, 3 of z each, ESS 1.5",
        "9,000",
        "cpu",
        "2 cores of a loom",
        f"`python trainers/reproduce.py --table=3 --budget=cpu --rows={ROW}`",
    ]
    # The same model is the VHE of Table 4, by that table's command.
    [line] = lines_of(text, "Table 4", "Variational Homoencoder", "65.12")
    assert "--table=4" in line
    [made] = [p for p in text.split("**") if p == f"{ROW}_cpu"]
    assert "    python train\n    python measure" in text.split(made)[-1]


def test_accuracies_are_percentages_and_kl_nats(document):
    accuracy = {
        "mean": 0.9875,
        "half_width_95": None,
        "num_trials": 20,
        "num_samples": 20,
        "num_element_samples": 1,
    }
    kl = {
        "mean": 268.4,
        "half_width_95": 2.0,
        "num_trials": 50,
        "support_sizes": [5, 5],
    }
    result = a_result(
        "table1_pixel_cnn_vhe",
        budget="gpu",
        **{"accuracy.20way_5shot": accuracy, "training_kl.character": kl},
    )
    text = document.render({"table1_pixel_cnn_vhe_gpu": result}, ())
    [line] = lines_of(text, "Table 1", "PixelCNN, VHE", "5-shot", "| gpu |")
    assert "| 98.8 | 98.8 | - | 20 tasks, 20 of c, 1 of z each |" in line
    [line] = lines_of(text, "Table 1", "PixelCNN, VHE", "KL", "| gpu |")
    assert "| 268.37 | 268.40 | ± 2.00 | 50 batches, \\|D\\| = 5 |" in line


def test_what_was_not_run_says_so(document, tables):
    text = document.render({}, ())
    for cell in tables.CELLS:
        lines = lines_of(
            text,
            tables.TABLES[cell.table],
            f"| {cell.method} | {tables.MEASURES[cell.measure]} |",
        )
        if cell.row is None:
            assert len(lines) == 1
            assert "| not implemented here |" in lines[0]
        else:
            assert len(lines) == len(tables.BUDGETS)
            assert all("| not run |" in line for line in lines)
    assert "Nothing was run yet." in text
    assert text.count(": not drawn.") == 2 * len(tables.FIGURES)


def test_other_models_stand_below_and_say_how_they_depart(document):
    other = a_result(budget="shipped", departure="|X| = 400")
    measured = "python measure --model=saved_models/shipped_model/best.keras"
    other["commands"][-1] = measured
    made_first = a_result(budget="mechanism")
    text = document.render({"shipped_model": other, "small": made_first}, ())
    lines = lines_of(text, "Table 3", "PixelCNN, VHE")
    assert ["not run" in line for line in lines] == [True, True, False, False]
    assert r"shipped: \|X\| = 400" in lines[2]
    assert lines[2].endswith(f"| `{measured}` |")
    # Its command would measure whatever lies in that folder of runs.
    assert lines[3].endswith("| small, below |")


@pytest.mark.parametrize(
    ("correct", "shown"),
    [(313, "78.2"), (377, "94.2"), (379, "94.8"), (381, "95.2"), (395, "98.8")],
)
def test_halves_are_rounded_alike(document, correct, shown):
    """Halves of a tenth of a percent, as a mean of 20 tasks gives them."""
    tasks = [20] * (correct // 20) + [correct % 20]
    tasks += [0] * (20 - len(tasks))
    for mean in (correct / 400, sum(task / 20 for task in tasks) / 20):
        value = {"mean": mean, "half_width_95": None}
        assert document.number("accuracy.20way_1shot", value) == shown


def test_figures_are_shown_where_they_were_drawn(document):
    text = document.render({}, {"docs/results/figure5_cpu.png"})
    assert "![figure5_cpu](results/figure5_cpu.png)" in text


@pytest.mark.parametrize(
    ("table", "method", "measure", "published"),
    [
        ("1", "PixelCNN, Resample (Eq. 19)", "accuracy.20way_5shot", "4.9"),
        ("1", "PixelCNN, VHE (Eq. 16)", "training_kl.character", "268.37"),
        (
            "1",
            "deconvolutional, Neural Statistician",
            "training_kl.character",
            "31.34",
        ),
        ("1", "deconvolutional, Rescale (Eq. 20)", "joint_nll", None),
        ("2", "VHE", "accuracy.20way_1shot", "95.2"),
        ("2", "VHE", "accuracy.20way_5shot", "98.8"),
        ("2", "VHE", "accuracy.20way_5shot_within_alphabet", "90.3"),
        ("2", "Prototypical Networks", "accuracy.20way_1shot", "96.0"),
        ("3", "PixelCNN, VHE (Eq. 16)", "joint_nll", "61.22"),
        ("3", "deconvolutional, Resample (Eq. 19)", "joint_nll", "110.30"),
        ("3", "PixelCNN, Rescale (Eq. 20)", "joint_nll", "71.37"),
        ("4", "Generative Matching Networks", "joint_nll", "62.42"),
        (
            "lake",
            "Bayesian Program Learning",
            "accuracy.20way_1shot_lake_runs",
            "96.7",
        ),
    ],
)
def test_published_numbers(tables, table, method, measure, published):
    found = [
        cell.paper
        for cell in tables.CELLS
        if (cell.table, cell.method, cell.measure) == (table, method, measure)
    ]
    assert found == ([] if published is None else [published])


def test_every_cell_is_measured_by_its_row(tables):
    for cell in tables.CELLS:
        assert cell.measure in tables.MEASURES
        if cell.row:
            for budget in tables.BUDGETS:
                assert tables.ROWS[cell.row].evaluate[budget]
    names = {cell.row for cell in tables.CELLS}
    names.update(row for figure in tables.FIGURES for row in figure.rows)
    assert names - {None} == set(tables.ROWS)


def test_every_flagfile_is_of_its_row(reproduce, tables):
    """Parsed by absl, with the trainer's flags, all in one process."""
    files = {
        f"{name} {budget}": reproduce.flagfile_path(row, budget)
        for name, row in tables.ROWS.items()
        for budget in tables.BUDGETS
        if row.trainer == "omniglot.py"
    }
    program = (
        "import json, sys; sys.path.insert(0, 'trainers')\n"
        "import omniglot\n"
        "from absl import flags\n"
        "settings = {}\n"
        "for name, path in json.loads(sys.argv[1]).items():\n"
        "    flags.FLAGS(['omniglot.py', '--flagfile=' + path])\n"
        "    settings[name] = dict(\n"
        "        omniglot.common.config(), run_dir=flags.FLAGS.run_dir)\n"
        "    flags.FLAGS.unparse_flags()\n"
        "    for flag in flags.FLAGS: flags.FLAGS[flag].unparse()\n"
        "print(json.dumps(settings))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(files)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    settings = json.loads(done.stdout)
    folders = set()
    for key, found in settings.items():
        name, budget = key.split()
        table, _, rest = name.partition("_")
        assert found["size"] == {"cpu": "small", "gpu": "published"}[budget]
        assert rest.startswith(found["architecture"])
        assert found["objective"] in rest
        assert found["split"] == (
            "random1200"
            if table == "table1" or name.endswith("1shot")
            else "lake"
        )
        grey = found["images"] == "grey"
        assert grey == (found["split"] == "random1200")
        augmented = (found["symmetries"], found["affine_copies"])
        assert augmented == ((1, 1) if table == "table3" else (8, 20))
        # What reproduce.py reads in it is what absl reads.
        mine = reproduce.read_flagfile(ROOT / files[key])
        for flag, text in mine.items():
            if flag in found:
                assert reproduce._same(found[flag], text), (key, flag)
        folders.add(found["run_dir"])
    assert len(folders) == len(files)


REPORT = {
    "accuracy": {
        "20way_1shot": {"mean": 0.5, "half_width_95": 0.1, "num_trials": 20},
        "20way_5shot": {"mean": 0.7, "half_width_95": 0.1, "num_trials": 20},
    },
    "joint_nll": {
        "mean": 65.0,
        "half_width_95": 1.0,
        "num_trials": 659,
        "unit": "nats an image",
        "num_samples": 500,
        "effective_sample_size": 2.5,
    },
    "conditional_nll": {
        "unit": "nats an image",
        **{
            f"{shots}shot": {
                "mean": 60.0 - shots,
                "half_width_95": 2.0,
                "num_trials": 200,
            }
            for shots in (1, 2, 5, 10, 19)
        },
    },
    "training_kl": {
        "character": {
            "mean": 150.0,
            "half_width_95": 3.0,
            "num_trials": 50,
            "unit": "nats",
        }
    },
    "left_out": [],
    "settings": {"num_samples": 20, "num_element_samples": 1},
}


def test_measures_keep_what_they_depend_on(reproduce, tables):
    measures = reproduce.measures_of(REPORT)
    assert measures["joint_nll"] == {
        "mean": 65.0,
        "half_width_95": 1.0,
        "num_trials": 659,
        "num_samples": 500,
        "num_element_samples": 1,
        "effective_sample_size": 2.5,
    }
    assert measures["conditional_nll.19shot"]["mean"] == 41.0
    assert "num_samples" not in measures["training_kl.character"]
    assert set(measures) <= set(tables.MEASURES)


@pytest.fixture
def workshop(reproduce, tables, tmp_path, monkeypatch):
    """A root of its own, and trainers that only write what they promise.

    Returns the scripts that were started, and those that are to fail.
    """
    flagfiles = tmp_path / "trainers" / "flagfiles"
    flagfiles.mkdir(parents=True)
    for path in (ROOT / "trainers" / "flagfiles").glob("table3_*.flags"):
        (flagfiles / path.name).write_text(path.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    started, failing = [], set()

    def execute(command, log):
        script = command[1].removeprefix("trainers/")
        started.append(script)
        given = dict(
            word.removeprefix("--").partition("=")[::2] for word in command[2:]
        )
        if script in failing:
            raise reproduce.RowError(f"{script} ended with status 1")
        if script == "evaluate.py":
            (tmp_path / given["out"]).write_text(json.dumps(REPORT), "utf-8")
            return
        flagged = reproduce.read_flagfile(tmp_path / given["flagfile"])
        folder = tmp_path / flagged["run_dir"]
        folder.mkdir(parents=True)
        config = {"epochs": int(flagged["epochs"]), "steps_per_epoch": 1000}
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        (folder / "metrics.json").write_text("{}", "utf-8")

    monkeypatch.setattr(reproduce, "execute", execute)
    return started, failing


def test_a_row_is_trained_measured_and_then_left_alone(reproduce, workshop):
    started, _ = workshop
    inputs = reproduce.Inputs(data_dir="/home/someone/data")
    assert reproduce.make([ROW], "cpu", inputs) == []
    assert started == ["omniglot.py", "evaluate.py"]
    path = reproduce.result_path(ROW, "cpu")
    text = path.read_text("utf-8")
    result = json.loads(text)
    assert result["steps"] == 9000
    assert result["measures"]["joint_nll"]["num_samples"] == 500
    assert "training_kl.character" not in result["measures"]  # not its cell
    assert "--data_dir=DIR" in result["commands"][1]
    assert "someone" not in text
    assert "<= 65.00" in (reproduce.ROOT / "docs/results.md").read_text("utf-8")
    assert reproduce.make([ROW], "cpu", inputs) == []
    assert started == ["omniglot.py", "evaluate.py"]
    assert not list(reproduce.ROOT.rglob("*.partial"))


def test_a_figure_needs_the_models_of_numbers_that_are_kept(
    reproduce, workshop
):
    started, _ = workshop
    inputs = reproduce.Inputs()
    reproduce.make([ROW], "cpu", inputs)
    path = reproduce.result_path(ROW, "cpu")
    kept = path.read_text("utf-8")
    shutil.rmtree(reproduce.ROOT / "runs")
    started.clear()
    assert reproduce.make([ROW], "cpu", inputs, drawn=["another"]) == []
    assert started == []
    assert reproduce.make([ROW], "cpu", inputs, drawn=[ROW]) == []
    assert started == ["omniglot.py"]
    assert reproduce.make([ROW], "cpu", inputs, drawn=[ROW]) == []
    assert started == ["omniglot.py"]
    assert path.read_text("utf-8") == kept


def test_a_row_of_pictures_alone_is_trained_to_be_drawn(reproduce):
    row, inputs = "figure7_alphabets", reproduce.Inputs()
    assert reproduce.missing_commands(row, "gpu", inputs) == []
    [command] = reproduce.missing_commands(row, "gpu", inputs, drawn=True)
    assert command[1] == "trainers/omniglot_alphabets.py"


def test_figures_are_drawn_of_models_whose_training_has_ended(
    reproduce, tables, workshop, monkeypatch, capsys
):
    figure = tables.Figure("figure0", "", (ROW,), "some.png")
    monkeypatch.setattr(tables, "FIGURES", (figure,))
    assert reproduce.rows_to_draw("cpu") == {ROW}
    folder = reproduce.ROOT / "runs" / f"{ROW}_cpu"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "some.png").write_bytes(b"first")
    (folder / "best.keras").touch()
    inputs = reproduce.Inputs()
    assert reproduce.draw_figures("cpu", inputs, [ROW]) == []
    picture = reproduce.picture_path(figure, "cpu")
    assert not picture.exists()
    assert f"figure0: no models {ROW}_cpu yet" in capsys.readouterr().out
    (folder / "metrics.json").touch()
    config = folder / "config.json"
    config.write_text('{"epochs": 8}', "utf-8")
    [failure] = reproduce.draw_figures("cpu", inputs, [ROW])
    assert "epochs: 8 there, '9' in the flagfile" in failure
    assert not picture.exists()
    config.write_text('{"epochs": 9}', "utf-8")
    assert reproduce.draw_figures("cpu", inputs, ["another"]) == []
    assert not picture.exists()
    assert reproduce.draw_figures("cpu", inputs, [ROW]) == []
    assert picture.read_bytes() == b"first"
    assert reproduce.rows_to_draw("cpu") == set()
    (folder / "pictures" / "some.png").write_bytes(b"second")
    assert reproduce.draw_figures("cpu", inputs, [ROW]) == []
    assert picture.read_bytes() == b"first"


def test_a_stopped_row_goes_on_where_it_was(reproduce, workshop):
    started, failing = workshop
    failing.add("evaluate.py")
    [failure] = reproduce.make([ROW], "cpu", reproduce.Inputs())
    assert failure.startswith(f"{ROW}: evaluate.py ended")
    assert not reproduce.result_path(ROW, "cpu").exists()
    failing.clear()
    started.clear()
    assert reproduce.make([ROW], "cpu", reproduce.Inputs()) == []
    assert started == ["evaluate.py"]


def test_a_training_that_was_asked_to_stop_is_not_measured(
    reproduce, workshop, monkeypatch
):
    """It ends with status 0, but without metrics.json."""
    started = []
    monkeypatch.setattr(
        reproduce, "execute", lambda command, log: started.append(command[1])
    )
    [failure] = reproduce.make([ROW], "cpu", reproduce.Inputs())
    assert "omniglot.py was asked to stop" in failure
    assert started == ["trainers/omniglot.py"]


def test_a_failed_row_does_not_stop_the_others(reproduce, workshop):
    started, failing = workshop
    failing.add("omniglot.py")
    rows = [ROW, "table3_pixel_cnn_resample"]
    failures = reproduce.make(rows, "cpu", reproduce.Inputs())
    assert [failure.partition(":")[0] for failure in failures] == rows
    assert started == ["omniglot.py", "omniglot.py"]


def test_a_damaged_run_does_not_stop_the_others(reproduce, workshop):
    started, _ = workshop
    other = "table3_pixel_cnn_resample"
    third = "table3_pixel_cnn_neural_statistician"
    damaged = ((ROW, ""), (other, '{"epochs"'), (third, "{}"))
    for row, config in damaged:
        folder = reproduce.ROOT / "runs" / f"{row}_cpu"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}", "utf-8")
        if config:
            (folder / "config.json").write_text(config, "utf-8")
    rows = [ROW, other, third, "table3_pixel_cnn_rescale"]
    failures = reproduce.make(rows, "cpu", reproduce.Inputs())
    for row, failure in zip(rows[:3], failures, strict=True):
        assert failure.startswith(f"{row}: runs/{row}_cpu/config.json ")
    assert started == ["omniglot.py", "evaluate.py"]


@pytest.mark.parametrize("text", ['{"rows"', "{}", "null"])
def test_a_damaged_result_is_named(reproduce, workshop, text):
    folder = reproduce.ROOT / "docs" / "results"
    folder.mkdir(parents=True)
    (folder / "some.json").write_text(text, "utf-8")
    with pytest.raises(reproduce.RowError, match=r"docs/results/some\.json"):
        reproduce.kept_results()


def test_a_dry_run_starts_nothing(reproduce, workshop, capsys):
    started, _ = workshop
    reproduce.make([ROW], "gpu", reproduce.Inputs(), dry_run=True)
    assert started == []
    shown = capsys.readouterr().out
    assert f"--flagfile=trainers/flagfiles/{ROW}.flags" in shown
    assert "--joint_num_samples=500" in shown
    assert list(reproduce.ROOT.iterdir()) == [reproduce.ROOT / "trainers"]


def test_a_run_of_other_settings_is_refused(reproduce, workshop):
    started, _ = workshop
    folder = reproduce.ROOT / "runs" / f"{ROW}_cpu"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("{}", "utf-8")
    for other, difference in (
        ('{"epochs": 8}', "epochs: 8 there, '9' in the flagfile"),
        ('{"epochs": 9, "run_dir": 1}', "run_dir: 1 there, 'runs/"),
    ):
        (folder / "config.json").write_text(other, "utf-8")
        [failure] = reproduce.make([ROW], "cpu", reproduce.Inputs())
        assert difference in failure
    assert started == []


def test_lakes_runs_are_asked_for_where_they_are_given(reproduce):
    row = "table2_pixel_cnn_vhe_alphabets"
    without = reproduce.wanted_measures(row, reproduce.Inputs())
    given = reproduce.Inputs(lake_runs="all_runs.zip")
    lake = "accuracy.20way_1shot_lake_runs"
    assert reproduce.wanted_measures(row, given) - without == {lake}
    commands = reproduce.missing_commands(row, "gpu", given)
    assert any("--lake_runs=" in word for word in commands[-1])
    commands = reproduce.missing_commands(ROW, "gpu", given)
    assert not any("--lake_runs=" in word for word in commands[-1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--lake_runs=nowhere.zip"], "There is no nowhere.zip"),
        ([], "--table=lake needs --lake_runs"),
    ],
)
def test_lakes_runs_that_are_not_there_are_told_before_hours_of_training(
    given, message
):
    done = output_of(trainer("--table=lake", *given, script="reproduce.py"))
    assert done.returncode == 1
    assert message in done.stdout
    assert "Traceback" not in done.stdout


def test_lakes_runs_that_are_left_out_are_named():
    for given, is_said in (([], True), (["--rows=table1"], False)):
        done = output_of(trainer("--dry_run", *given, script="reproduce.py"))
        assert done.returncode == 0
        assert ("Lake's runs are left out" in done.stdout) == is_said


def test_a_command_is_shown_logged_and_its_failure_explained(
    reproduce, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    log = tmp_path / "runs" / "row.log"
    command = [sys.executable, "-c", "print('epoch 1/1')"]
    reproduce.execute(command, log)
    assert "epoch 1/1" in capsys.readouterr().out
    command[2] = "raise SystemExit('error: Omniglot is not prepared')"
    with pytest.raises(reproduce.RowError, match="not prepared") as error:
        reproduce.execute(command, log)
    assert "runs/row.log" in str(error.value)
    logged = log.read_text("utf-8")
    assert "epoch 1/1" in logged
    assert "not prepared" in logged


def test_an_unknown_row_is_refused(reproduce):
    for names, unknown in (
        (["nosuch"], "'nosuch'"),
        ([ROW, "nosuch"], "'nosuch'"),
        ([ROW, ""], "''"),
    ):
        with pytest.raises(SystemExit, match=f"Received: {unknown}"):
            reproduce.select_rows(["4"], names)
    assert reproduce.select_rows(["4"], []) == [ROW]


KL_PROGRAM = """
import json, pathlib, sys
sys.path.insert(0, "trainers")
import evaluate
import numpy as np
from tests.conftest import tiny_vhe
from vhe_tf.data import GroupedImages
from vhe_tf.data import datasets

run = {
    "num_validation_groups": 3, "seed": 5, "support_size": "1-3",
    "batch_size": 4, "symmetries": 2, "affine_copies": 1,
}
folder = pathlib.Path(sys.argv[1])
(folder / "config.json").write_text(json.dumps(run))
labels = {
    "character": np.repeat(np.arange(12), 6),
    "alphabet": np.repeat(np.arange(6), 12),
}
images = np.random.default_rng(0).integers(0, 2, (72, 8, 8, 1))
images = images.astype(np.float32)
data = GroupedImages(images, labels)
structure, name, num_groups = sys.argv[2:]
_, held_out = datasets.hold_out_groups(data, name, int(num_groups), seed=5)
held_out = np.isin(labels[name], held_out.group_ids(name))
model = tiny_vhe(structure)

def measure(images, num_batches, support_size=None):
    data = GroupedImages(images, labels)
    sampler = evaluate.training_sampler(
        model,
        folder / "best.keras",
        datasets.DataSplits(data, None, data, (8, 8), "none"),
        support_size=support_size,
        seed=1,
    )
    return evaluate.training_kl(model, sampler, num_batches=num_batches)

def inverted(which):
    return np.where(which[:, None, None, None], 1 - images, images)

measured = [
    measure(images, 5),
    measure(inverted(held_out), 5),
    measure(inverted(~held_out), 5),
    measure(images, 1),
    measure(images, 5, 3),
]
run["support_size"] = 3
(folder / "config.json").write_text(json.dumps(run))
print(json.dumps([*measured, measure(images, 5)]))
"""


@pytest.mark.parametrize(
    ("structure", "held_out", "latents"),
    [
        ("flat", ("character", "3"), {"character"}),
        # A quarter of the alphabets is one.
        ("hierarchical", ("alphabet", "1"), {"alphabet", "character"}),
    ],
)
def test_training_kl_is_of_the_groups_that_were_trained_on(
    tmp_path, structure, held_out, latents
):
    """Other images of the others change nothing."""
    done = subprocess.run(
        [sys.executable, "-c", KL_PROGRAM, str(tmp_path), structure, *held_out],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    several, held_out, trained, one, of_three, run_of_three = json.loads(
        done.stdout.splitlines()[-1]
    )
    assert of_three == run_of_three
    assert of_three["character"]["support_sizes"] == [3, 3]
    assert several["character"]["support_sizes"] == [1, 3]
    assert of_three != several
    assert held_out == several
    assert trained != several
    assert set(several) == latents
    assert several["character"]["mean"] > 0
    assert several["character"]["half_width_95"] > 0
    assert several["character"]["num_trials"] == 5
    assert one["character"]["half_width_95"] is None


def published_measure(mean, half_width=0.01):
    return {
        "mean": mean,
        "half_width_95": half_width,
        "num_trials": 20,
        "num_samples": 20,
    }


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        (published_measure(0.967), "ok"),
        (published_measure(0.95), "OUT"),
        # 400 of 400 queries: no interval, but not certainty either.
        (published_measure(1.0, 0.0), "ok"),
        ({**published_measure(0.98), "num_samples": 500}, "not measured"),
        (None, "not measured"),
    ],
)
def test_agreement_is_that_intervals_overlap(reproduce, again, verdict):
    name = "accuracy.20way_1shot"
    published = {name: published_measure(0.985)}
    found = {} if again is None else {name: again}
    [(said, line)] = reproduce.compare("model", published, found)
    assert said == verdict
    assert "published 98.5 ± 1.0" in line


def test_a_kl_has_no_draws_to_agree_on(reproduce):
    name = "training_kl.character"
    value = {"mean": 150.0, "half_width_95": 3.0, "num_trials": 50}
    [(said, _)] = reproduce.compare("model", {name: value}, {name: value})
    assert said == "ok"


def test_a_check_needs_what_it_compares_with(reproduce, workshop, capsys):
    started, _ = workshop
    assert reproduce.check(reproduce.Inputs()) == 1
    assert "omniglot_pixel_cnn_small.json" in capsys.readouterr().out
    assert started == []


def test_a_check_that_measured_nothing_fails(reproduce, monkeypatch):
    monkeypatch.setattr(reproduce, "measure_again", lambda name, inputs: {})
    assert reproduce.check(reproduce.Inputs()) == 1


@pytest.mark.parametrize(("shift", "status"), [(0.0, 0), (60.0, 1)])
def test_the_check_measures_every_shipped_model(
    reproduce, tables, monkeypatch, capsys, shift, status
):
    """Against the very numbers that are kept, and against others."""

    def measure_again(name, inputs):
        found = {}
        for result in reversed(tables.CHECKS[name].results):
            path = ROOT / "docs" / "results" / f"{result}.json"
            found |= json.loads(path.read_text("utf-8"))["measures"]
        return {k: {**v, "mean": v["mean"] + shift} for k, v in found.items()}

    monkeypatch.setattr(reproduce, "measure_again", measure_again)
    assert reproduce.check(reproduce.Inputs()) == status
    shown = capsys.readouterr().out
    assert ("OUT" in shown) == bool(status)
    for name, how in tables.CHECKS.items():
        assert (ROOT / "saved_models" / name / "best.keras").exists()
        for result in how.results:
            assert f"{result} " in shown
    # As many draws of c make other bounds: k = 100 and 500 beside these.
    assert shown.count("not measured ") == 2
    assert shown.count("ok ") == (0 if status else 29)


def test_the_check_asks_for_what_it_compares(tables):
    for how in tables.CHECKS.values():
        measures = set()
        for result in how.results:
            path = ROOT / "docs" / "results" / f"{result}.json"
            measures.update(json.loads(path.read_text("utf-8"))["measures"])
        accuracies = {m for m in measures if m.startswith("accuracy.20way_")}
        accuracies.discard(tables.LAKE_MEASURE)
        within = {m for m in accuracies if m.endswith("_within_alphabet")}
        assert bool(accuracies) == ("--shots=" not in how.evaluate)
        assert bool(within) == ("--within=" not in how.evaluate)


def test_the_document_is_that_of_the_kept_results(document):
    """`python trainers/reproduce.py --render_only` brings it up to date."""
    results = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in sorted((ROOT / "docs" / "results").glob("*.json"))
    }
    pictures = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs").rglob("*.png")
    }
    kept = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert document.render(results, pictures) == kept
    assert str(ROOT) not in kept
