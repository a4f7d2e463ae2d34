"""Pages of HTML from the templates in `templates`: everything is escaped, unless a caller says that it is HTML.

Every page is one file: style and pictures are inside, so it can be mailed, opened offline and printed.
"""
from __future__ import annotations

import base64
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# Jinja2 is imported where it is used: whoever writes no page does not wait for it.


def render(template: str, **values: Any) -> str:
    """Fill a template.

    Args:
        template: its file's name.
        **values: what it shows; text is escaped, what `html` returns is not.

    Returns:
        The page.
    """
    return _environment().get_template(template).render(**values)


def html(text: str) -> Markup:
    """Mark text as HTML, in which everything is escaped that has to be."""
    from markupsafe import Markup
    return Markup(text)


def data_uri(content: bytes, kind: str) -> str:
    """The content of a file as the source of an image; `kind` is its media type, such as `image/png`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def inline(text: str) -> Markup:
    """Text as HTML, with `code`, **bold**, and the interval of `0.84 (0.82 to 0.86)` smaller than its figure."""
    from markupsafe import escape

    escaped = str(escape(text))
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    escaped = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
    return html(re.sub(r"^(\S+) (\([-+\d.]+ to [-+\d.]+\))$", r"\1 <small>\2</small>", escaped))


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                              keep_trailing_newline=True)
    environment.filters["inline"] = inline
    return environment
