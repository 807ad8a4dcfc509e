"""Makes a page and a notebook of each tutorial script.

python -m tools.tutorials

The scripts in docs/tutorials are in the light format of jupytext; the tests
execute them.
"""

import pathlib
import re

import jupytext
import nbformat

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs" / "tutorials"

_WITHOUT_METADATA = {
    "jupytext": {
        "notebook_metadata_filter": "-all",
        "cell_metadata_filter": "-all",
    }
}


def made_of(script: pathlib.Path) -> dict[str, str]:
    """Returns the page and the notebook of a script.

    Args:
        script: Path of a tutorial.

    Returns:
        Dictionary from file endings, `".md"` and `".ipynb"`, to contents.
    """
    notebook = jupytext.read(script, fmt="py:light")
    notebook.metadata = _WITHOUT_METADATA
    page = jupytext.writes(notebook, fmt="md")
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        }
    }
    for index, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{index}"
    note = (
        f"*A page made from [`{script.name}`]({script.name}), which the tests "
        f"execute; also a [notebook]({script.stem}.ipynb).*\n"
    )
    # The title stays first.
    page = re.sub(r"\A(# .*\n)", rf"\1\n{note}", page)
    return {".md": page, ".ipynb": nbformat.writes(notebook) + "\n"}


def main() -> None:
    """Writes the pages and notebooks."""
    for script in sorted(FOLDER.glob("*.py")):
        for ending, content in made_of(script).items():
            script.with_suffix(ending).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
