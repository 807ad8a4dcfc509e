import dataclasses
import json
import os
import pathlib
import shutil
import signal
import sys
import threading
import time

import numpy as np
import pytest

from tests.conftest import tiny_vhe
from vhe_tf.data import GroupedImages
from vhe_tf.data import datasets
from vhe_tf.evaluation import Measurement
from vhe_tf.evaluation import Report
from vhe_tf.evaluation import TrainingKL
from vhe_tf.experiments import Experiment
from vhe_tf.experiments import Run
from vhe_tf.experiments import check
from vhe_tf.experiments import evaluate
from vhe_tf.experiments import figures
from vhe_tf.experiments import get
from vhe_tf.experiments import paper
from vhe_tf.experiments import render
from vhe_tf.experiments import reproduce
from vhe_tf.experiments import results

ROOT = pathlib.Path(__file__).resolve().parents[2]

ROW = "table3_pixel_cnn_vhe"
NLL = {
    "mean": 65.123,
    "interval_95": [63.623, 66.623],
    "standard_error": 0.765,
    "num_values": 659,
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


def test_a_section_shows_everything_a_number_depends_on():
    result = a_result(departure="|X| = 400")
    text = render.render({f"{ROW}_cpu": result})
    section = text.split(f"\n## {ROW}_cpu\n")[1]
    assert (
        section
        == f"""
Budget: cpu, 9,000 steps; 2 cores of a loom; Python 3.11.7.

- {ROW}, |X| = 400

| measure | paper | ours | interval | measured on |
| --- | --- | --- | --- | --- |
| joint NLL (nats per image) | 61.22 | <= 65.12 | 63.62, 66.62 \
| 659 characters, k = 20, 3 of z each, ESS 1.5 |

    python train
    python measure
"""
    )


def test_accuracies_are_percentages_and_kl_nats():
    accuracy = {
        "mean": 0.9875,
        "interval_95": None,
        "standard_error": None,
        "num_values": 20,
        "num_samples": 20,
        "num_element_samples": 1,
    }
    kl = {
        "mean": 268.4,
        "interval_95": [266.4, 270.4],
        "standard_error": 1.0,
        "num_values": 50,
        "support_sizes": [5, 5],
    }
    result = a_result(
        "table1_pixel_cnn_vhe",
        budget="gpu",
        **{"accuracy.20way_5shot": accuracy, "training_kl.character": kl},
    )
    lines = render.render({"table1_pixel_cnn_vhe_gpu": result}).splitlines()
    [line] = [line for line in lines if "5-shot" in line]
    assert line.endswith("| 98.8 | 98.8 | - | 20 tasks, 20 of c, 1 of z each |")
    [line] = [line for line in lines if line.startswith("| KL")]
    assert line.endswith(
        "| 268.37 | 268.40 | 266.40, 270.40 | 50 batches, \\|D\\| = 5 |"
    )


@pytest.mark.parametrize(
    ("correct", "shown"),
    [(313, "78.2"), (377, "94.2"), (379, "94.8"), (381, "95.2"), (395, "98.8")],
)
def test_halves_are_rounded_alike(correct, shown):
    """Halves of a tenth of a percent, as a mean of 20 tasks gives them."""
    tasks = [20] * (correct // 20) + [correct % 20]
    tasks += [0] * (20 - len(tasks))
    for mean in (correct / 400, sum(task / 20 for task in tasks) / 20):
        value = {"mean": mean, "interval_95": None}
        assert render.number("accuracy.20way_1shot", value) == shown


def test_figures_are_shown_where_they_were_drawn():
    text = render.render_summary({}, {"docs/results/figure5_cpu.png"})
    assert "![figure5_cpu](results/figure5_cpu.png)" in text


def test_the_summary_has_a_line_per_model_with_its_provenance():
    results = {
        f"{ROW}_cpu": a_result(),
        "variation": a_result(budget="mechanism"),
        "shipped_model": a_result(budget="shipped", departure="|X| = 400"),
    }
    text = render.render_summary(results, ())
    lines = lines_of(text, "Table 3", "PixelCNN, VHE")
    assert lines == [
        "| PixelCNN, VHE (Eq. 16) | 61.22 | <= 65.12 [63.62, 66.62] "
        f"| [cpu](results/provenance.md#{ROW}_cpu) |",
        "| PixelCNN, VHE (Eq. 16) | 61.22 | <= 65.12 [63.62, 66.62] "
        r"| [shipped](results/provenance.md#shipped_model): \|X\| = 400 |",
    ]
    [line] = lines_of(text, "Table 3", "PixelCNN, Rescale")
    assert line.endswith("| 71.37 |  | not run |")
    [line] = lines_of(text, "Table 4", "Generative Matching Networks")
    assert line.endswith("| 62.42 |  | not implemented here |")


def test_a_published_table_has_four_columns_and_each_protocol_stands_once():
    text = render.render_summary({}, ())
    headings = [x for x in text.splitlines() if x.startswith("| method")]
    assert headings.pop().count("|") == 8  # by shots, without a number
    assert {line.count("|") for line in headings} == {5}
    assert len(headings) == 12
    stated = {row.protocol for row in paper.ROWS.values()} - {"Figure 7"}
    assert {name: text.count(paper.PROTOCOLS[name]) for name in stated} == (
        dict.fromkeys(stated, 1)
    )


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
        ("5", "PixelCNN, VHE (Eq. 16)", "joint_nll", "4091.3"),
        (
            "5",
            "deconvolutional, Neural Statistician",
            "accuracy.20way_1shot",
            "39.2 (200-way)",
        ),
        (
            "5",
            "PixelCNN, Neural Statistician",
            "accuracy.20way_2shot",
            "98.5 (200-way 5-shot)",
        ),
        (
            "lake",
            "Bayesian Program Learning",
            "accuracy.20way_1shot_lake_runs",
            "96.7",
        ),
    ],
)
def test_published_numbers(table, method, measure, published):
    found = [
        cell.paper
        for cell in paper.CELLS
        if (cell.table, cell.method, cell.measure) == (table, method, measure)
    ]
    assert found == ([] if published is None else [published])


def test_every_cell_is_measured_by_its_row():
    for cell in paper.CELLS:
        assert cell.measure in paper.MEASURES
        if cell.row:
            for budget in paper.BUDGETS:
                assert paper.ROWS[cell.row].evaluate[budget]
    names = {cell.row for cell in paper.CELLS}
    names.update(row for figure in paper.FIGURES for row in figure.rows)
    assert names - {None} == set(paper.ROWS)


def test_every_experiment_is_of_its_row():
    names = set()
    for name, row in paper.ROWS.items():
        table, _, rest = name.partition("_")
        for budget in paper.BUDGETS:
            experiment = get(row.experiments[budget])
            names.add(row.experiments[budget])
            small = {"cpu": "small", "gpu": "published"}[budget]
            assert experiment.size == small
            if table == "figure7":
                assert experiment.architecture == "alphabet"
                continue
            assert rest.startswith(experiment.architecture)
            assert experiment.objective in rest
            if table == "table5":
                assert experiment.group == "video"
                frames = {"cpu": 3, "gpu": 48}[budget]
                assert frames * experiment.affine_copies == 48
                is_pixel_cnn = experiment.architecture == "pixel_cnn"
                assert experiment.high_bits == (3 if is_pixel_cnn else None)
                continue
            random = table == "table1" or name.endswith("1shot")
            assert experiment.split == ("random1200" if random else "lake")
            assert experiment.images == ("grey" if random else "binary")
            augmented = (experiment.symmetries, experiment.affine_copies)
            assert augmented == ((1, 1) if table == "table3" else (8, 20))
    assert len(names) == 2 * len(paper.ROWS)


def test_measurements_of_rows_are_settings_of_evaluate():
    for row in paper.ROWS.values():
        for measuring in row.evaluate.values():
            evaluate.Measuring(**measuring)
            assert reproduce.as_flags(measuring)
    for how in paper.CHECKS.values():
        evaluate.Measuring(**how.evaluate)
    flags = reproduce.as_flags({"shots": (1, 5), "within": "", "num_tasks": 3})
    assert flags == ["--shots=1,5", "--within=", "--num_tasks=3"]


def test_objectives_of_faces_are_compared_at_equal_budgets():
    for architecture, _ in paper.TABLE_5:
        for budget in paper.BUDGETS:
            one, other = (
                get(
                    paper.ROWS[
                        f"table5_{architecture}_{objective}"
                    ].experiments[budget]
                )
                for objective in ("neural_statistician", "vhe")
            )
            same = dataclasses.replace(one, objective="vhe")
            if architecture == "pixel_cnn":
                assert same.learning_rate < other.learning_rate
                same = dataclasses.replace(
                    same, learning_rate=other.learning_rate
                )
            assert same == other


def _measured(metric, mean, half_width, number, **fields):
    interval = (mean - half_width, mean + half_width)
    return Measurement(metric, mean, interval, (mean,) * number, **fields)


DRAWS = {"num_samples": 20, "num_element_samples": 1}
REPORT = Report(
    (
        _measured("accuracy", 0.5, 0.1, 20, ways=20, shots=1, **DRAWS),
        _measured("accuracy", 0.7, 0.1, 20, ways=20, shots=5, **DRAWS),
        _measured("elbo", -90.0, 1.0, 200),
        _measured(
            "joint_nll",
            65.0,
            1.0,
            659,
            num_samples=500,
            num_element_samples=1,
            effective_sample_size=2.5,
        ),
        *(
            _measured("conditional_nll", 60.0 - n, 2.0, 200, shots=n, **DRAWS)
            for n in (1, 2, 5, 10, 19)
        ),
        _measured("training_kl", 150.0, 3.0, 50, latent="character"),
    )
).to_json()


def test_measures_keep_what_they_depend_on():
    measures = results.measures_of(REPORT)
    assert measures["joint_nll"] == {
        "mean": 65.0,
        "interval_95": [64.0, 66.0],
        "standard_error": 0.0,
        "values": [65.0] * 659,
        "num_values": 659,
        "num_samples": 500,
        "num_element_samples": 1,
        "effective_sample_size": 2.5,
    }
    assert measures["conditional_nll.19shot"]["mean"] == 41.0
    assert "num_samples" not in measures["training_kl.character"]
    assert set(measures) <= set(paper.MEASURES)


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A checkout of its own, and commands that only write what they promise.

    Returns the commands that were started, and those that are to fail.
    """
    monkeypatch.setattr(results, "ROOT", tmp_path)
    started, failing = [], set()

    def execute(command, log):
        name, argument, *rest = command[3:]
        started.append(name)
        if name in failing:
            raise results.RowError(f"{name} ended with status 1")
        if name == "evaluate":
            [out] = [w for w in rest if w.startswith("--out=")]
            path = tmp_path / out.removeprefix("--out=")
            path.write_text(json.dumps(REPORT), "utf-8")
            return
        run = Run(tmp_path / "runs" / argument, get(argument))
        run.begin()
        run.metrics.write_text("{}", "utf-8")

    monkeypatch.setattr(reproduce, "execute", execute)
    return started, failing


def test_a_row_is_trained_measured_and_then_left_alone(workshop):
    started, _ = workshop
    inputs = reproduce.Inputs(data_dir="/home/someone/data")
    assert reproduce.make([ROW], "cpu", inputs=inputs) == []
    assert started == ["train", "evaluate"]
    path = results.result_path(ROW, "cpu")
    text = path.read_text("utf-8")
    result = json.loads(text)
    assert result["steps"] == 9000
    assert result["measures"]["joint_nll"]["num_samples"] == 500
    assert "training_kl.character" not in result["measures"]  # not its cell
    assert "--data_dir=DIR" in result["commands"][1]
    assert "someone" not in text
    assert "<= 65.00" in (results.ROOT / "docs/results.md").read_text("utf-8")
    assert reproduce.make([ROW], "cpu", inputs=inputs) == []
    assert started == ["train", "evaluate"]
    assert not list(results.ROOT.rglob("*.partial"))


def test_a_figure_needs_the_models_of_numbers_that_are_kept(workshop):
    started, _ = workshop
    inputs = reproduce.Inputs()
    reproduce.make([ROW], "cpu", inputs=inputs)
    path = results.result_path(ROW, "cpu")
    kept = path.read_text("utf-8")
    shutil.rmtree(results.ROOT / "runs")
    started.clear()
    assert reproduce.make([ROW], "cpu", inputs=inputs, drawn=["another"]) == []
    assert started == []
    assert reproduce.make([ROW], "cpu", inputs=inputs, drawn=[ROW]) == []
    assert started == ["train"]
    assert reproduce.make([ROW], "cpu", inputs=inputs, drawn=[ROW]) == []
    assert started == ["train"]
    assert path.read_text("utf-8") == kept


def test_a_row_of_pictures_alone_is_trained_to_be_drawn():
    row, inputs = "figure7_alphabets", reproduce.Inputs()
    assert reproduce.missing_commands(row, "gpu", inputs=inputs) == []
    [command] = reproduce.missing_commands(
        row, "gpu", inputs=inputs, drawn=True
    )
    assert command[3:] == ["train", "omniglot_alphabets_published"]


def test_a_caveat_stands_beside_each_number_of_faces(workshop, monkeypatch):
    row = "table5_pixel_cnn_vhe"
    report = Report(
        (
            _measured("accuracy", 0.9, 0.1, 10, ways=20, shots=1, **DRAWS),
            _measured("accuracy", 0.95, 0.1, 10, ways=20, shots=2, **DRAWS),
            _measured(
                "joint_nll",
                9000.0,
                90.0,
                100,
                num_dimensions=4800,
                effective_sample_size=1.2,
                **DRAWS,
            ),
        ),
        caveat="a subset",
    ).to_json()
    monkeypatch.setitem(globals(), "REPORT", report)
    inputs = reproduce.Inputs(manual_dir="/home/someone/faces")
    train, measure = reproduce.missing_commands(row, "cpu", inputs=inputs)
    assert "--manual_dir=/home/someone/faces" in train
    assert not any("--manual_dir" in word for word in measure)
    assert reproduce.make([row], "cpu", inputs=inputs) == []
    result = results.read_json(results.result_path(row, "cpu"))
    assert result["rows"] == {row: "a subset"}
    assert "--manual_dir=ARCHIVE" in result["commands"][0]
    summary = (results.ROOT / "docs/results.md").read_text("utf-8")
    lines = lines_of(summary, "Table 5", "PixelCNN, VHE", "[cpu]")
    assert len(lines) == 3
    assert all(line.endswith("): a subset |") for line in lines)
    provenance = render.render({"faces": result})
    [line] = [x for x in provenance.splitlines() if x.startswith("| joint")]
    assert line.endswith(
        "| 100 videos, k = 20, 1 of z each, ESS 1.2, 2.705 bits per dimension |"
    )


def test_a_table_brings_its_figures(workshop, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        figures,
        "draw_figures",
        lambda budget, rows, **_: drawn.extend(rows) or [],
    )
    monkeypatch.setattr(reproduce, "make", lambda *_, **__: [])
    (results.ROOT / "docs" / "results").mkdir(parents=True)
    reproduce.main(["reproduce", "--table=5"])
    assert drawn == [
        f"table5_{a}_{objective}" for a, objective in paper.TABLE_5
    ]


def test_figures_are_drawn_of_models_whose_training_has_ended(
    workshop, monkeypatch, capsys
):
    figure = paper.Figure("figure0", "", (ROW,), "some.png")
    monkeypatch.setattr(paper, "FIGURES", (figure,))
    assert figures.rows_to_draw("cpu") == {ROW}
    folder = results.ROOT / "runs" / f"{ROW}_cpu"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "some.png").write_bytes(b"first")
    (folder / "best.keras").touch()
    assert figures.draw_figures("cpu", [ROW]) == []
    picture = figures.picture_path(figure, "cpu")
    assert not picture.exists()
    assert f"figure0: no models {ROW}_cpu yet" in capsys.readouterr().out
    Run(folder, get(f"{ROW}_cpu")).begin()
    (folder / "metrics.json").touch()
    assert figures.draw_figures("cpu", ["another"]) == []
    assert not picture.exists()
    assert figures.draw_figures("cpu", [ROW]) == []
    assert picture.read_bytes() == b"first"
    assert figures.rows_to_draw("cpu") == set()
    (folder / "pictures" / "some.png").write_bytes(b"second")
    assert figures.draw_figures("cpu", [ROW]) == []
    assert picture.read_bytes() == b"first"


def test_a_stopped_row_goes_on_where_it_was(workshop):
    started, failing = workshop
    failing.add("evaluate")
    [failure] = reproduce.make([ROW], "cpu", inputs=reproduce.Inputs())
    assert failure.startswith(f"{ROW}: evaluate ended")
    assert not results.result_path(ROW, "cpu").exists()
    failing.clear()
    started.clear()
    assert reproduce.make([ROW], "cpu", inputs=reproduce.Inputs()) == []
    assert started == ["evaluate"]


def test_a_training_that_was_asked_to_stop_is_not_measured(
    workshop, monkeypatch
):
    """It ends with status 0, but without metrics.json."""
    started = []
    monkeypatch.setattr(
        reproduce, "execute", lambda command, log: started.append(command[3])
    )
    [failure] = reproduce.make([ROW], "cpu", inputs=reproduce.Inputs())
    assert "vhe-tf train was stopped by SIGTERM" in failure
    assert started == ["train"]


def test_a_failed_row_does_not_stop_the_others(workshop):
    started, failing = workshop
    failing.add("train")
    rows = [ROW, "table3_pixel_cnn_resample"]
    failures = reproduce.make(rows, "cpu", inputs=reproduce.Inputs())
    assert [failure.partition(":")[0] for failure in failures] == rows
    assert started == ["train", "train"]


def test_a_corrupt_run_does_not_stop_the_others(workshop):
    started, _ = workshop
    other = "table3_pixel_cnn_resample"
    third = "table3_pixel_cnn_neural_statistician"
    corrupt = ((ROW, ""), (other, '{"epochs"'), (third, "{}"))
    for row, config in corrupt:
        folder = results.ROOT / "runs" / f"{row}_cpu"
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text("{}", "utf-8")
        if config:
            (folder / "config.json").write_text(config, "utf-8")
    rows = [ROW, other, third, "table3_pixel_cnn_rescale"]
    failures = reproduce.make(rows, "cpu", inputs=reproduce.Inputs())
    for row, failure in zip(rows[:3], failures, strict=True):
        assert failure.startswith(f"{row}: ")
        assert f"runs/{row}_cpu" in failure
        assert "config.json" in failure
    assert started == ["train", "evaluate"]


@pytest.mark.parametrize("text", ['{"rows"', "{}", "null"])
def test_a_corrupt_result_is_named(workshop, text):
    folder = results.ROOT / "docs" / "results"
    folder.mkdir(parents=True)
    (folder / "some.json").write_text(text, "utf-8")
    with pytest.raises(results.RowError, match=r"docs/results/some\.json"):
        results.kept_results()


def test_a_dry_run_starts_nothing(workshop, capsys):
    started, _ = workshop
    reproduce.make([ROW], "gpu", inputs=reproduce.Inputs(), dry_run=True)
    assert started == []
    shown = capsys.readouterr().out
    assert f"train {ROW} " in shown
    assert "--joint_num_samples=500" in shown
    assert list(results.ROOT.iterdir()) == []


def test_a_run_of_other_settings_is_refused(workshop):
    started, _ = workshop
    run = Run(results.ROOT / "runs" / f"{ROW}_cpu", get(ROW))
    run.begin()
    run.metrics.write_text("{}", "utf-8")
    [failure] = reproduce.make([ROW], "cpu", inputs=reproduce.Inputs())
    assert "`size`: 'published' there, 'small' here" in failure
    assert started == []


def test_lakes_runs_are_asked_for_where_they_are_given():
    row = "table2_pixel_cnn_vhe_alphabets"
    without = reproduce.wanted_measures(row, reproduce.Inputs())
    given = reproduce.Inputs(lake_runs="all_runs.zip")
    lake = "accuracy.20way_1shot_lake_runs"
    assert reproduce.wanted_measures(row, given) - without == {lake}
    commands = reproduce.missing_commands(row, "gpu", inputs=given)
    assert any("--lake_runs=" in word for word in commands[-1])
    commands = reproduce.missing_commands(ROW, "gpu", inputs=given)
    assert not any("--lake_runs=" in word for word in commands[-1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--lake_runs=nowhere.zip"], r"Received: --lake_runs=nowhere\.zip"),
        (["--data_dir=nowhere"], "--data_dir must be an existing folder"),
        (["--budget=tpu"], "one of gpu, cpu. Received: --budget=tpu"),
        (["--check"], "--table has no effect with --check"),
        (["--render_only"], "--table has no effect with --render_only"),
        ([], "--table=lake needs --lake_runs"),
        (["more"], "Received: more"),
        (["--table=6"], "--table must be one of 1, .*--table=lake,6"),
    ],
)
def test_mistakes_are_told_before_hours_of_training(given, message):
    with pytest.raises(SystemExit, match=message):
        reproduce.main(["reproduce", "--table=lake", *given])


def test_lakes_runs_that_are_left_out_are_named(capsys):
    for given, is_said in (([], True), (["--rows=table1"], False)):
        reproduce.main(["reproduce", "--dry_run", *given])
        said = capsys.readouterr().out
        assert ("left out: --lake_runs" in said) == is_said


def test_a_command_is_shown_logged_and_its_failure_explained(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    log = tmp_path / "runs" / "row.log"
    command = [sys.executable, "-c", "print('epoch 1/1')", "train"]
    reproduce.execute(command, log)
    assert "epoch 1/1" in capsys.readouterr().out
    command[2] = "raise SystemExit('error: Omniglot is not prepared')"
    with pytest.raises(results.RowError, match="not prepared") as error:
        reproduce.execute(command, log)
    assert "runs/row.log" in str(error.value)
    logged = log.read_text("utf-8")
    assert "epoch 1/1" in logged
    assert "not prepared" in logged


def test_an_unknown_row_is_refused():
    for names, unknown in (
        (["nosuch"], "'nosuch'"),
        ([ROW, "nosuch"], "'nosuch'"),
        ([ROW, ""], "''"),
    ):
        with pytest.raises(SystemExit, match=f"Received: {unknown}"):
            reproduce.select_rows(["4"], names)
    assert reproduce.select_rows(["4"], []) == [ROW]


@pytest.mark.parametrize(
    ("structure", "name", "num_groups"),
    # A quarter of the alphabets is one.
    [("flat", "character", 3), ("hierarchical", "alphabet", 1)],
)
def test_training_kl_is_of_the_groups_that_were_trained_on(
    structure, name, num_groups
):
    """Other images of the others change nothing."""
    labels = {
        "character": np.repeat(np.arange(12), 6),
        "alphabet": np.repeat(np.arange(6), 12),
    }
    images = np.random.default_rng(0).integers(0, 2, (72, 8, 8, 1))
    images = images.astype(np.float32)
    _, held = datasets.hold_out_groups(
        GroupedImages(images, labels), name, num_groups=num_groups, seed=5
    )
    held_out = np.isin(labels[name], held.group_ids(name))
    model = tiny_vhe(structure)
    latents = [v.name for v in model.latents if not v.per_element]
    experiment = Experiment(
        architecture="deconvolutional" if structure == "flat" else "alphabet",
        num_validation_groups=3,
        seed=5,
        support_size=(1, 3),
        batch_size=4,
        symmetries=2,
        affine_copies=1,
    )

    def measure(images, num_batches=3, size=None):
        data = GroupedImages(images, labels)
        episodes = evaluate.training_episodes(
            evaluate.Measuring(
                num_kl_batches=num_batches, kl_support_size=size, seed=1
            ),
            model,
            experiment=experiment,
            splits=datasets.DataSplits(data, None, data, (8, 8), "none"),
        )
        measured = TrainingKL(episodes, num_batches=num_batches)(model)
        return {each.latent: each for each in measured}

    def inverted(which):
        return np.where(which[:, None, None, None], 1 - images, images)

    several = measure(images)
    assert set(several) == set(latents)
    assert measure(inverted(held_out)) == several
    assert measure(inverted(~held_out)) != several
    assert several["character"].mean > 0
    assert several["character"].half_width > 0
    assert several["character"].num_values == 3
    assert several["character"].support_sizes == (1, 3)
    assert measure(images, 1)["character"].half_width is None
    of_three = measure(images, size=3)
    assert of_three["character"].support_sizes == (3, 3)


def published_measure(mean, error=0.005):
    return {
        "mean": mean,
        "interval_95": [mean - 0.01, mean + 0.01],
        "standard_error": error,
        "num_values": 20,
        "num_queries": 400,
        "num_samples": 20,
    }


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        (published_measure(0.967), "ok"),
        (published_measure(0.91), "OUT"),
        # 400 of 400 queries: no variance, but not certainty either.
        (published_measure(1.0, 0.0), "ok"),
        ({**published_measure(0.98), "num_samples": 500}, "not measured"),
        (None, "not measured"),
    ],
)
def test_agreement_is_no_significant_difference(again, verdict):
    name = "accuracy.20way_1shot"
    published = {name: published_measure(0.985)}
    found = {} if again is None else {name: again}
    [(said, line)] = check.compare("model", published=published, found=found)
    assert said == verdict
    assert "published 98.5 [97.5, 99.5]" in line


def test_a_kl_has_no_draws_to_agree_on():
    name = "training_kl.character"
    value = {
        "mean": 150.0,
        "interval_95": [147.0, 153.0],
        "standard_error": 1.5,
        "num_values": 50,
    }
    for shift, verdict in ((0.0, "ok"), (6.0, "ok"), (12.0, "OUT")):
        again = {**value, "mean": 150.0 + shift}
        [(said, _)] = check.compare(
            "model", published={name: value}, found={name: again}
        )
        assert said == verdict


def test_a_check_needs_what_it_compares_with(workshop, capsys):
    started, _ = workshop
    assert check.check(reproduce.Inputs()) == 1
    assert "omniglot_pixel_cnn_small.json" in capsys.readouterr().out
    assert started == []


def test_a_check_that_measured_nothing_fails(monkeypatch):
    monkeypatch.setattr(check, "measure_again", lambda name, inputs: {})
    assert check.check(reproduce.Inputs()) == 1


@pytest.mark.parametrize(("shift", "status"), [(0.0, 0), (60.0, 1)])
def test_the_check_measures_every_shipped_model(
    monkeypatch, capsys, shift, status
):
    """Against the very numbers that are kept, and against others."""

    def measure_again(name, inputs):
        found = {}
        for result in reversed(paper.CHECKS[name].results):
            path = ROOT / "docs" / "results" / f"{result}.json"
            found |= json.loads(path.read_text("utf-8"))["measures"]
        return {k: {**v, "mean": v["mean"] + shift} for k, v in found.items()}

    monkeypatch.setattr(check, "measure_again", measure_again)
    assert check.check(reproduce.Inputs()) == status
    shown = capsys.readouterr().out
    assert ("OUT" in shown) == bool(status)
    for name, how in paper.CHECKS.items():
        assert (ROOT / "saved_models" / name / "best.keras").exists()
        for result in how.results:
            assert f"{result} " in shown
    # Other k make other bounds: k = 100 and 500 beside these.
    assert shown.count("not measured ") == 2
    assert shown.count("ok ") == (0 if status else 29)


def test_the_check_asks_for_what_it_compares():
    for how in paper.CHECKS.values():
        measures = set()
        for result in how.results:
            path = ROOT / "docs" / "results" / f"{result}.json"
            measures.update(json.loads(path.read_text("utf-8"))["measures"])
        accuracies = {m for m in measures if m.startswith("accuracy.20way_")}
        accuracies.discard(paper.LAKE_MEASURE)
        within = {m for m in accuracies if m.endswith("_within_alphabet")}
        assert bool(accuracies) == ("shots" not in how.evaluate)
        assert bool(within) == ("within" not in how.evaluate)


def test_the_document_is_that_of_the_kept_results():
    """`vhe-tf reproduce --render_only` brings it up to date."""
    results = {
        path.stem: json.loads(path.read_text("utf-8"))
        for path in sorted((ROOT / "docs" / "results").glob("*.json"))
    }
    pictures = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs").rglob("*.png")
    }
    summary = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert render.render_summary(results, pictures) == summary
    kept = (ROOT / "docs" / "results" / "provenance.md").read_text("utf-8")
    assert render.render(results) == kept
    assert str(ROOT) not in kept


def test_ctrl_c_lets_a_command_save_its_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(results, "ROOT", tmp_path)
    program = (
        "import signal, time\n"
        "def save(*_):\n"
        "    print('saved', flush=True)\n"
        "    raise SystemExit(0)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    log = tmp_path / "run.log"

    def interrupt():
        while not log.exists() or "begun\n" not in log.read_text():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        reproduce.execute([sys.executable, "-c", program], log)
    assert log.read_text().endswith("begun\nsaved\n")
    assert "    saved\n" in capsys.readouterr().out


@pytest.mark.parametrize("report", [{}, {"measurements": 3}])
def test_what_is_no_report_is_told(report):
    with pytest.raises(results.RowError, match="has another form"):
        results.measures_of(report)
