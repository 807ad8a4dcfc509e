"""Hooks of mkdocs: links out of docs/, and sections of docstrings.

On a code host a link to a file outside docs/ opens the file. The site has no
such page, so that it shows the file's path. Docstrings have the sections of
Keras: call arguments, and examples that are not indented.
"""

import pathlib
import posixpath
import re
from typing import Any

import griffe

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CALL_ARGUMENTS = re.compile(r"(?m)^Call arguments:\n((?: .*\n|\n)+)")
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


class KerasSections(griffe.Extension):
    """Makes of Keras' sections in docstrings what Google's style knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Indents what follows `Example:`, and lists the call arguments."""
        if obj.docstring is None:
            return
        text = _CALL_ARGUMENTS.sub(_listed, obj.docstring.value)
        before, heading, example = text.partition("Example:\n")
        if heading and not example.startswith("    "):
            example = example.replace("\n", "\n    ")
            text = f"{before}Examples:\n    {example}"
        obj.docstring.value = text


def _listed(section: re.Match[str]) -> str:
    """Returns a section as a list; keys of an argument are a list within."""
    items = re.sub(r"(?m)^    (\S+?): ", r"- `\1`: ", section[1])
    items = re.sub(r"(?m)^ {8}(`\w+`: )", r"    - \1", items)
    return f"**Call arguments:**\n\n{items}"
