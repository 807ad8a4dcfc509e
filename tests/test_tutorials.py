"""The tutorials and the README's Python run; pages are made from scripts."""

import pathlib
import re
import runpy

import pytest

from tests.conftest import tiny_sizes

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "tutorials"

# What makes each small.
README = {
    "generate_glyphs()": "generate_glyphs(num_alphabets=2)",
    "[29]": "[1]",
    "seed=1)": "seed=1, num_samples=1)",
    "epochs=10": "epochs=1, verbose=0",
    "steps_per_epoch=200": "steps_per_epoch=1",
}
SMALL = {
    "first_steps": {
        "NUM_CHARACTERS = 20": "NUM_CHARACTERS = 4",
        "[:6]": "[:1]",
    },
    "own_images": {
        "generate_glyphs()": "generate_glyphs(num_alphabets=4)",
        "shots=(1, 5)": "shots=(1,)",
        "EPOCHS, STEPS_PER_EPOCH = 4, 100": "EPOCHS, STEPS_PER_EPOCH = 1, 1",
        "num_tasks=2": "num_tasks=1, ways=(2,)",
        "batch_size=16": "batch_size=2",
        "verbose=2,": "verbose=0, validation_steps=1,",
    },
    "own_structure": {
        "FILTERS = (16, 32, 48)": "FILTERS = (8, 8, 8)",
        "EPOCHS, STEPS_PER_EPOCH = 5, 200": "EPOCHS, STEPS_PER_EPOCH = 1, 1",
    },
    "paper_in_an_hour": {
        "generate_glyphs()": "generate_glyphs(num_alphabets=6)",
        "STEPS, NUM_TASKS, NUM_SAMPLES = 2000, 5, 5": (
            "STEPS, NUM_TASKS, NUM_SAMPLES = 1, 1, 1"
        ),
        '"vhe", "neural_statistician", "resample", "rescale"': '"rescale",',
        "num_tasks=NUM_TASKS": "num_tasks=NUM_TASKS, ways=(2,)",
        "batch_size=16": "batch_size=2",
        "[:6, :5]": "[:1, :5]",
    },
    "serving": {"NUM_SAMPLES = 20": "NUM_SAMPLES = 1"},
}


def test_every_tutorial_is_tested():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SMALL)


def _run_small(text, replacements):
    """Runs a script by models of few features and without their weights."""
    text = text.replace(
        'load_model("omniglot_pixel_cnn_small")', 'pixel_cnn_vhe("small")'
    )
    for large, small in replacements.items():
        assert large in text
        text = text.replace(large, small)
    script = pathlib.Path("script.py")  # of the current folder
    script.write_text(text, "utf-8")
    with tiny_sizes():
        runpy.run_path(str(script))


@pytest.mark.parametrize("name", SMALL)
def test_tutorials_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _run_small((FOLDER / f"{name}.py").read_text("utf-8"), SMALL[name])


def test_the_python_of_the_readme_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(
        r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE
    )
    assert len(blocks) > 1
    _run_small("".join(blocks), README)
    assert pathlib.Path("runs/mine/checkpoints").is_dir()


@pytest.mark.parametrize("name", SMALL)
def test_pages_and_notebooks_are_those_of_the_scripts(name):
    """`python -m tools.tutorials` brings them up to date."""
    pytest.importorskip("jupytext", reason="needs vhe_tf[docs]")
    from tools import tutorials

    script = FOLDER / f"{name}.py"
    for ending, content in tutorials.made_of(script).items():
        kept = script.with_suffix(ending).read_text("utf-8")
        assert kept == content
