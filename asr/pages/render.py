"""Render a template of this folder as one HTML file that needs no other file and no network."""

import base64
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["COLOURS", "data_uri", "render"]

_FOLDER = Path(__file__).parent
COLOURS = _FOLDER / "colours.css"


def render(template: str, **values: Any) -> str:
    """The page.

    Args:
        template: name of a file in this folder.
        values: what it names; text is escaped.
    """
    return _environment().get_template(template).render(**values)


def data_uri(kind: str, content: bytes) -> str:
    """A file inside a page.

    Args:
        kind: its media type, such as image/png.
        content: its bytes.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@functools.cache
def _environment() -> "Environment":
    import jinja2  # slow to load, and seldom needed

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    # A style or script of this folder, to be written inside the page.
    environment.globals["inline"] = lambda name: (_FOLDER / name).read_text(encoding="utf-8")
    return environment
