"""Texts and names hold none of the forms that CONTRIBUTING.md bans."""

import ast
import io
import pathlib
import re
import tokenize

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ROOMS = ("vhe_tf", "trainers", "tools", "examples", "benchmarks")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
# Without this file, whose examples are banned forms.
TESTS = sorted({*(ROOT / "tests").rglob("*.py")} - {pathlib.Path(__file__)})
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(
        path
        for room in ("docs", "deploy", "saved_models", "tools", "vhe_tf")
        for path in sorted((ROOT / room).rglob("*.md"))
        if path.parent != ROOT / "docs/lab"
    ),
]

BANNED = {
    "an inanimate subject or an elliptic passive": (
        r"\b(is|are) refused\b|\brefuses\b|\b(is|are) told\b|\bsays so\b"
    ),
    "goes on, for resumes or continues": r"\b(goes|go|went) on\b",
    "a, for per": (
        r"\b([Ii]mages?|[Ee]pisodes?|nats|bits|samples?|steps?|seconds?"
        r"|quer(y|ies)|rows?|values?|labels?|ids?|integers?|decodings?"
        r"|operations|million|\d+) an? "
        r"(image|class|second|query|group|step|episode|replica|channel|task)\b"
        r"|\ba row a\b|\bone row an?\b"
    ),
    "is no, for is not a": (
        r"(?<!there )(?<!There )\b(is|are|was|were) no "
        r"(?!longer|more|better|worse|less)"
    ),
    "told and tells, of things": r"\btold\b|\b(can ?not|could not|to) tell\b",
    "draws, for samples": (
        r"\b(\d+|of|few|more|other|these|independent|the) draws\b|\bdraws of\b"
        r"|\bat each draw\b|\bdraws? (a|the) batch|\b(noise|support D) drawn\b"
        r"|\bdrawn (at random|from|uniformly|without|for each (batch|step))\b"
    ),
    "chance, for randomness": (
        r"\b(all the|same|its|own) chance\b|\bchance of its own\b"
    ),
    "by N shots, for N-shot": r"\bby (one|two|five|ten) shots?\b",
    "half there": r"\bhalf there\b",
    "in words": r"\bin words\b",
    "a posterior that lives": r"\b(comes?|came) alive\b|\bout of use\b",
    "an argument described by Of": r"(?m)^\s*\w+: Of\b",
}
# Also in names.
WORDS = {
    "cue, for support image": r"(?i)(?<![a-z])cues?(?![a-z])",
    "damage, for corrupt": r"(?i)damag",
    "trial, for task": r"(?i)(?<![a-z])trials?(?![a-z])(?!_id)",
}
FIRST_LINE = re.compile(r"(Of|What|Where|Whether|How|Which)\b")
SECTION = re.compile(
    r"(?m)^(?:Args|Call arguments|Attributes):\n((?: .*\n?|\n)+)"
)
ENTRY = re.compile(r"(?m)^    (\S[\w*`, ]*): *(.*)")
TYPE = re.compile(
    r"(?i)(?:(?:even|floating|four|keras|nested|non-negative|odd|point|positive"
    r"|scalar|three|two|u?int\d+|float\d+)[ -])*"
    r"(?:(?:any|arrays?|booleans?|bytes|callables?|collection|dictionary"
    r"|distribution|floats?|initializer|integers?|iterable|layers?"
    r"|lists?|mappings?|number|optimizer|pair|paths?|sequence|strings?"
    r"|subclass|tensors?|tuple|type)\b|`[^\"])"
    r"|As (?:in |`)|Passed on to "
)


def _docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield node, docstring


def _tokens(source):
    """Yields the strings, comments and names of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value, BANNED | WORDS
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string, BANNED | WORDS
        elif token.type == tokenize.NAME:
            yield token.string, WORDS


def _forms(text, banned):
    return [
        f"{form}: {text[max(0, match.start() - 30) : match.end() + 30]!r}"
        for form, pattern in banned.items()
        for match in re.finditer(pattern, text)
    ]


def found(source):
    """Returns the banned forms in the texts and names of a module."""
    forms = [
        form
        for text, banned in dict.fromkeys(
            (text, tuple(banned.items())) for text, banned in _tokens(source)
        )
        for form in _forms(text, dict(banned))
    ]
    forms += [
        f"first line: {docstring.splitlines()[0]!r}"
        for node, docstring in _docstrings(ast.parse(source))
        if FIRST_LINE.match(docstring)
    ]
    return forms


def untyped(source):
    """Returns the documented arguments whose text does not begin with a type.

    Those of public names. "As in" and "Passed on to" lead to a type.
    """
    return [
        f"{node.name}: {name}: {text}"
        for node, docstring in _docstrings(ast.parse(source))
        if not getattr(node, "name", "_").startswith("_")
        for section in SECTION.findall(docstring)
        for name, text in ENTRY.findall(section)
        if not TYPE.match(text)
    ]


def _by_file(paths, forms):
    """Returns the banned forms of each file that has any."""
    return {
        str(path.relative_to(ROOT)): found_here
        for path in paths
        if (found_here := forms(path.read_text("utf-8")))
    }


def test_texts_have_no_banned_form():
    assert not _by_file([*MODULES, *TESTS], found)


def test_documents_have_no_banned_form():
    def forms(text):  # code may be of another version
        return _forms(re.sub(r"`[^`\n]*`", "", text), BANNED | WORDS)

    assert not _by_file(DOCUMENTS, forms)


def test_arguments_begin_with_their_type():
    assert not _by_file(MODULES, untyped)


def test_arguments_without_a_type_are_found():
    source = (
        'def f():\n    """Counts.\n\n    Args:\n        count: Integer. Size.\n'
        '            All: rows.\n        seed: Decides it.\n    """'
    )
    assert untyped(source) == ["f: seed: Decides it."]


@pytest.mark.parametrize(
    "text",
    [
        "A graph is refused.",
        "The run goes on.",
        "In nats an image.",
        "Accuracy by one shot.",
        "x: Of the same.",
        "Of what is measured.",
        "Given five cues.",
        "The file is damaged.",
        "Accuracy over 20 trials.",
        "What is kept is told.",
        "A mean over 20 draws of c.",
        "The seed is all the chance that is used.",
        "In images a second.",
        "Two values an image.",
        "Operations: 50 million an image.",
        "A support drawn without replacement.",
        "The file is no archive.",
    ],
)
def test_banned_forms_are_found(text):
    assert found(f'"""{text}"""')
    assert found(f"# {text}") or text.startswith(("x: Of", "Of what"))
    assert _forms(text, BANNED | WORDS) or text.startswith("Of what")


@pytest.mark.parametrize(
    "name", ["cues", "_NUM_CUE_SAMPLES", "DamagedError", "num_trials"]
)
def test_banned_names_are_found(name):
    assert found(f"{name} = 1")
    assert not found("rescue = industrial = 1")
