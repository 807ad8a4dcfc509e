"""The documents: their links, limits and numbers."""

import ast
import json
import pathlib
import re

import pytest

import vhe_tf

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in (
        "*.md",
        "*/README.md",
        "docs/**/*.md",
        "saved_models/*/README.md",
        "tools/*/README.md",
        "vhe_tf/**/README.md",
    )
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def _anchors(text):
    """Returns the anchors that a code host makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in headings
    }


def _resolves(path, target):
    file, _, anchor = target.partition("#")
    linked = (path.parent / file).resolve() if file else path
    if not linked.exists():
        return False
    return not anchor or anchor in _anchors(linked.read_text("utf-8"))


def test_links_resolve():
    texts = {
        path: re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        for path in DOCUMENTS
    }
    assert not [
        f"{path.relative_to(ROOT)}: {target}"
        for path, text in texts.items()
        for target in LINK.findall(text)
        if not target.startswith(("http://", "https://"))
        and not _resolves(path, target)
    ]


@pytest.mark.parametrize(
    ("name", "lines"), [("README.md", 120), ("WORKSPACE_NOTES.md", 150)]
)
def test_documents_at_the_top_are_short(name, lines):
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= lines


def test_the_import_table_is_that_of_the_test():
    tree = ast.parse((ROOT / "tests/test_package.py").read_text("utf-8"))
    [tested] = [
        eval(compile(ast.Expression(node.value), "", "eval"))
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "MAY_IMPORT"
    ]
    notes = (ROOT / "WORKSPACE_NOTES.md").read_text("utf-8")
    section = notes.split("## Import table")[1].split("\n## ")[0]
    shown = {}
    for line in section.splitlines():
        if not line.startswith("| `") or "trainers/" in line:
            continue
        parts, may_import = line.strip("| ").split(" | ")
        names = set(re.findall(r"`(\w+)`", may_import))
        if may_import.startswith("all of the above but"):
            names = set(tested) - names - {"experiments"}
        for part in re.findall(r"`(\w+)`", parts):
            shown[part] = names
    assert shown == tested


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_tables_of_models_agree_with_the_cards(page):
    text = (ROOT / page).read_text("utf-8")
    presets = vhe_tf.presets()
    lines = [
        line
        for line in text.splitlines()
        if (found := re.match(r"\| \[?`(\w+)`", line)) and found[1] in presets
    ]
    assert len(lines) == len(presets)
    for line in lines:
        preset = presets[re.match(r"\| \[?`(\w+)`", line)[1]]
        assert f"| {preset.num_parameters:,} |" in line
        for measure, value in preset.results.items():
            shown = f"{value:.1f}" if "accuracy" in measure else str(value)
            assert shown in line, measure


def test_results_in_the_readme_are_kept_results():
    """Each row links to the model of its numbers."""
    text = (ROOT / "README.md").read_text("utf-8")
    rows = re.findall(
        r"^\|.*?(\| [^|]* \| )\[\w+\]\([^#)]*#(\w+)\) \|$", text, re.MULTILINE
    )
    assert len(rows) >= 5
    for ours, name in rows:
        kept = json.loads(
            (ROOT / "docs" / "results" / f"{name}.json").read_text("utf-8")
        )["measures"]
        numbers = set()
        for measure, value in kept.items():
            percent = measure.startswith("accuracy")
            digits, scale = (1, 100) if percent else (2, 1)
            for number in (value["mean"], *(value["interval_95"] or ())):
                numbers.add(f"{round(scale * number, 9):.{digits}f}")
        for number in re.findall(r"\d+\.\d+", ours):
            assert number in numbers


def test_drawings_in_files_are_read_with_ink_high():
    sources = [*DOCUMENTS, *ROOT.glob("docs/tutorials/*.py")]
    sources += ROOT.glob("examples/*.py")
    calls = [
        call
        for path in sources
        for call in re.findall(
            r"vhe_tf\.data\.read_(?:image_folder|label_table)\(([^)]*)\)",
            path.read_text("utf-8"),
        )
    ]
    assert len(calls) > 4
    wanted = "drawings=True, invert=None"
    assert not [call for call in calls if wanted not in " ".join(call.split())]
