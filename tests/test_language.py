"""Docstrings and messages hold none of the forms that CONTRIBUTING.md bans."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
MODULES = sorted((ROOT / "vhe_tf").rglob("*.py"))

BANNED = {
    "an inanimate subject or an elliptic passive": (
        r"\b(is|are) refused\b|\brefuses\b|\b(is|are) told\b|\bsays so\b"
    ),
    "goes on, for resumes or continues": r"\b(goes|go|went) on\b",
    "a, for per": r"\b(nats|bits|images?|samples?|draws?) an? (image|class)\b",
    "by N shots, for N-shot": r"\bby (one|two|five|ten) shots?\b",
    "in words": r"\bin words\b",
    "a posterior that lives": r"\b(comes?|came) alive\b|\bout of use\b",
    "an argument described by Of": r"(?m)^\s*\w+: Of\b",
}
FIRST_LINE = re.compile(r"(Of|What|Where|Whether|How|Which)\b")


def _docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node, docstring


def found(source):
    """Returns the banned forms in the strings of a module."""
    tree = ast.parse(source)
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    forms = [
        f"{form}: {text[max(0, match.start() - 30) : match.end() + 30]!r}"
        for text in texts
        for form, pattern in BANNED.items()
        for match in re.finditer(pattern, text)
    ]
    forms += [
        f"first line: {docstring.splitlines()[0]!r}"
        for node, docstring in _docstrings(tree)
        if FIRST_LINE.match(docstring)
    ]
    return forms


@pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: str(path.relative_to(ROOT))
)
def test_texts_have_no_banned_form(path):
    assert not found(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "A graph is refused.",
        "The run goes on.",
        "In nats an image.",
        "Accuracy by one shot.",
        "x: Of the same.",
        "Of what is measured.",
    ],
)
def test_banned_forms_are_found(text):
    assert found(f'"""{text}"""')
