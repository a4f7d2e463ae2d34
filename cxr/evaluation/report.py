"""A report of any kind: sections with text, tables and pictures, written as Markdown, JSON and one HTML page.

The page needs nothing beside it: pictures and style are inside, so it can be mailed, opened offline and printed.
"""
from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill

import numpy as np
from prettytable import PrettyTable

from cxr.utils.files import write_json, write_text
from cxr.visual import pages
from cxr.visual.image_files import save_picture


@dataclass(frozen=True)
class Note:
    """A sentence that must not be overlooked."""
    text: str


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row. Rows named in `totals` stand out. Without a header it is a list
    of facts: name, value.
    """
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    totals: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """`name`: of the file, without suffix. `image`: (H, W, 3) uint8 RGB. `caption`: what it shows. `dpi`: its pixels to
    the inch; 96 is a pixel of the screen each.
    """
    name: str
    image: np.ndarray
    caption: str
    dpi: int = 96


@dataclass(frozen=True)
class Section:
    """`name`: key of `values` in the JSON file. `blocks`: text (with `code` and **bold**), `Note`, `Table`, `Picture`
    in the order of reading. `values`: the same as numbers; nan becomes null.
    """
    name: str
    title: str
    blocks: Sequence[str | Note | Table | Picture]
    values: Mapping = field(default_factory=dict)


def save_report(folder: str | os.PathLike, title: str, sections: Sequence[Section]) -> Path:
    """Write `report.md`, `report.json`, `report.html` and the pictures that the first shows.

    Args:
        folder: where they go.
        title: of the report.
        sections: in the order of reading.

    Returns:
        The path of the HTML.
    """
    folder = Path(folder)
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                save_picture(_file(folder, block), block.image)
    write_text(folder / "report.md", "\n\n".join(
        [f"# {_escaped(title)}", *(part for section in sections for part in _markdown(section))]) + "\n")
    write_json(folder / "report.json", {"title": title, **{section.name: section.values for section in sections}})
    shown = [{"name": section.name, "title": section.title,
              "blocks": [_for_page(block, folder) for block in section.blocks]} for section in sections]
    write_text(folder / "report.html", pages.render("report.html", language="en", title=title, sections=shown))
    return folder / "report.html"


def _file(folder: Path, picture: Picture) -> Path:
    return folder / f"{picture.name}.png"


def _markdown(section: Section) -> list[str]:
    parts = [f"## {_escaped(section.title)}"]
    for block in section.blocks:
        if isinstance(block, Table):
            header = block.header or ("", "")
            rows = [map(_cell, header), ["---"] + ["---:" if block.header else "---"] * (len(header) - 1),
                    *([f"**{cell}**" if row[0] in block.totals and cell else cell for cell in map(_cell, row)]
                      for row in block.rows)]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        elif isinstance(block, Picture):
            parts.append(f"![{_without_html(block.caption)}]({block.name}.png)")
        elif isinstance(block, Note):
            parts.append(f"> **Note.** {_without_html(block.text)}")
        else:
            parts.append(_without_html(block))
    return parts


def _cell(text: str) -> str:
    return _escaped(text).replace("\n", " ")


def _escaped(text: str) -> str:
    return _without_html(text).replace("|", "\\|")


def _without_html(text: str) -> str:
    """Text whose tags and entities a Markdown reader shows instead of obeying: class names come from anywhere."""
    return re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")


def _for_page(block: str | Note | Table | Picture, folder: Path) -> tuple[str, object]:
    """A block and its kind as the template takes them: pictures as what an `<img>` needs."""
    if isinstance(block, Picture):
        height, width = (round(side * 96 / block.dpi) for side in block.image.shape[:2])
        data = pages.data_uri(_file(folder, block).read_bytes(), "image/png")
        return "Picture", {"data": data, "caption": block.caption, "width": width, "height": height}
    return type(block).__name__, block


def printed(section: Section) -> str:
    """A section for the terminal: its title, text, notes and tables."""
    parts = [f"{section.title}\n{'-' * len(section.title)}"]
    for block in section.blocks:
        if isinstance(block, Table):
            table = PrettyTable(block.header, align="r")
            table.add_rows(block.rows)
            table.align[block.header[0]] = "l"
            parts.append(table.get_string())
        elif isinstance(block, (str, Note)):
            parts.append(fill(block if isinstance(block, str) else f"Note: {block.text}", 120))
    return "\n".join(parts)
