"""Hooks of mkdocs: links out of docs/, and examples.

On a code host a link to a file outside docs/ opens the file. The site has no
such page, so that it shows the file's path. Examples in docstrings are written
as Keras writes them, not indented.
"""

import pathlib
import posixpath
import re
from typing import Any

import griffe

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replaces links to files outside docs/ by the paths of the files.

    Args:
        markdown: String. The page.
        page: Any. The page of mkdocs.
        **_: Any. Other arguments of mkdocs.

    Returns:
        String. Markdown.

    Raises:
        ValueError: If a file does not exist.
    """
    folder = posixpath.dirname(f"docs/{page.file.src_uri}")

    def replaced(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match[2]))
        if path.startswith("docs/"):
            return match[0]
        if not (_ROOT / path).exists():
            raise ValueError(
                f"A link leads nowhere. Received: {match[2]} in "
                f"docs/{page.file.src_uri}"
            )
        text = match[1].strip("`")
        return f"`{path}`" if text in path else f"{match[1]} (`{path}`)"

    return _LINK.sub(replaced, markdown)


class KerasExamples(griffe.Extension):
    """Makes the examples of docstrings sections of Google's style."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Indents what follows `Example:`."""
        if obj.docstring is None:
            return
        before, heading, example = obj.docstring.value.partition("Example:\n")
        if heading and not example.startswith("    "):
            example = example.replace("\n", "\n    ")
            obj.docstring.value = f"{before}Examples:\n    {example}"
