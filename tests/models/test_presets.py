import os
import pathlib
import subprocess
import sys

import pytest
import yaml

import vhe_tf
from vhe_tf.models import presets

ROOT = pathlib.Path(__file__).parents[2]
CARDS = sorted(ROOT.glob("saved_models/*/README.md"))
# Also what model hubs read: https://huggingface.co/docs/hub/model-cards
HEADINGS = {
    "license",
    "library_name",
    "pipeline_tag",
    "tags",
    "datasets",
    "metrics",
    "model-index",
    "trained_on",
    "num_parameters",
}


def test_every_shipped_model_is_listed():
    folders = [card.parent for card in CARDS]
    assert list(vhe_tf.presets()) == [folder.name for folder in folders]
    for folder, preset in zip(folders, vhe_tf.presets().values(), strict=True):
        assert preset.card == folder / "README.md"
        assert preset.installed
        assert preset.results


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.parent.name)
def test_a_card_has_the_header_of_model_hubs(card):
    _, header, text = card.read_text(encoding="utf-8").split("---\n", 2)
    facts = yaml.safe_load(header)
    assert facts.keys() == HEADINGS
    assert facts["license"] == "mit"
    assert facts["library_name"] == "keras"
    (entry,) = facts["model-index"]
    assert entry["name"] == card.parent.name
    (result,) = entry["results"]
    assert set(facts["metrics"]) == {m["type"] for m in result["metrics"]}
    for metric in result["metrics"]:  # with its interval, below
        assert f" {metric['value']}" in text


@pytest.mark.parametrize("name", ["folder", "file", "preset"])
def test_a_run_a_file_and_a_preset_have_a_path(name, tmp_path):
    given = {
        "folder": tmp_path,
        "file": tmp_path / "best.keras",
        "preset": "omniglot_pixel_cnn_small",
    }[name]
    folder = tmp_path
    if name == "preset":
        folder = ROOT / "saved_models" / "omniglot_pixel_cnn_small"
    assert presets.model_path(given) == folder / "best.keras"


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Received: .*best\.keras"):
        vhe_tf.load_model(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Builds the package as a wheel has it."""
    folder = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", folder],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=120,
    )
    return folder


def _run(built, program):
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=built,
        env={**os.environ, "PYTHONPATH": str(built)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_wheel_is_small(built):
    files = [path for path in built.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6  # uncompressed
    names = {path.parent.name for path in built.rglob("best.keras")}
    assert len([name for name in names if "pixel_cnn" in name]) >= 3
    assert "omniglot_styles_small" in names


def test_the_wheel_lists_all_models_and_says_where_the_others_are(built):
    run = _run(
        built,
        "import vhe_tf; all = vhe_tf.presets().values();"
        "print(len(all), {p.name for p in all if not p.installed});"
        "vhe_tf.models.presets.model_path('omniglot_pixel_cnn_large')",
    )
    assert run.stdout.startswith(f"{len(CARDS)} ")
    assert "omniglot_pixel_cnn_large" in run.stdout
    assert "saved_models/omniglot_pixel_cnn_large/best.keras" in run.stderr
    assert "Received: 'omniglot_pixel_cnn_large'" in run.stderr


def test_a_model_of_the_wheel_loads(built):
    run = _run(
        built,
        "import vhe_tf; print(vhe_tf.__file__);"
        "print(vhe_tf.load_model('omniglot_pixel_cnn_small').count_params())",
    )
    assert str(built) in run.stdout, run.stderr
    preset = vhe_tf.presets()["omniglot_pixel_cnn_small"]
    assert run.stdout.split()[-1] == str(preset.num_parameters)


def test_tracked_files_are_small():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a clone")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert sum(f.stat().st_size for f in files if f.is_file()) < 40e6
