"""A report of any kind: sections with text, tables and pictures, written as Markdown, JSON and one HTML page.

The page needs nothing beside it: pictures and style are inside, so it can be mailed, opened offline and printed.
"""
from __future__ import annotations

import base64
import html
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill

import numpy as np
from prettytable import PrettyTable

from cxr.utils.files import write_json, write_text
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
    """Write `report.md`, `report.json`, `report.html` and the pictures that the first shows; returns the HTML's path.
    """
    folder = Path(folder)
    for section in sections:
        for block in section.blocks:
            if isinstance(block, Picture):
                save_picture(_file(folder, block), block.image)
    write_text(folder / "report.md", "\n\n".join(
        [f"# {_escaped(title)}", *(part for section in sections for part in _markdown(section))]) + "\n")
    write_json(folder / "report.json", {"title": title, **{section.name: section.values for section in sections}})
    body = "\n".join(f'<section id="{section.name}">\n<h2>{html.escape(section.title)}</h2>\n'
                     + "\n".join(_html(block, folder) for block in section.blocks) + "\n</section>"
                     for section in sections)
    write_text(folder / "report.html", _PAGE.format(title=html.escape(title), style=_STYLE, body=body))
    return folder / "report.html"


def _file(folder: Path, picture: Picture) -> Path:
    return folder / f"{picture.name}.png"


def _markdown(section: Section) -> list[str]:
    parts = [f"## {_escaped(section.title)}"]
    for block in section.blocks:
        if isinstance(block, Table):
            header = block.header or ("", "")
            rows = [header, ["---"] + ["---:" if block.header else "---"] * (len(header) - 1),
                    *([f"**{cell}**" if row[0] in block.totals and cell else cell for cell in map(_cell, row)]
                      for row in block.rows)]
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        elif isinstance(block, Picture):
            parts.append(f"![{block.caption}]({block.name}.png)")
        elif isinstance(block, Note):
            parts.append(f"> **Note.** {block.text}")
        else:
            parts.append(block)
    return parts


def _cell(text: str) -> str:
    return _escaped(text).replace("\n", " ")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _html(block: str | Note | Table | Picture, folder: Path) -> str:
    if isinstance(block, Table):
        head = "".join(f"<th>{_inline(cell)}</th>" for cell in block.header)
        rows = []
        for row in block.rows:
            kind = ' class="total"' if row[0] in block.totals else ""
            rows.append(f"<tr{kind}>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>")
        kind, head = ("", f"<thead><tr>{head}</tr></thead>") if block.header else (' class="facts"', "")
        return f'<div class="wide"><table{kind}>{head}\n<tbody>\n' + "\n".join(rows) + "\n</tbody></table></div>"
    if isinstance(block, Picture):
        data = base64.b64encode(_file(folder, block).read_bytes()).decode()
        height, width = (round(side * 96 / block.dpi) for side in block.image.shape[:2])
        return (f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(block.caption)}" width="{width}" '
                f'height="{height}"><figcaption>{_inline(block.caption)}</figcaption></figure>')
    if isinstance(block, Note):
        return f'<p class="note">{_inline(block.text)}</p>'
    return f"<p>{_inline(block)}</p>"


def _inline(text: str) -> str:
    """Escaped, with `code`, **bold**, and the interval of `0.84 (0.82-0.86)` smaller than its figure."""
    text = html.escape(text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"^(\S+) (\([-+\d.]+ to [-+\d.]+\))$", r"\1 <small>\2</small>", text)


_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans CJK SC", sans-serif;
       color: #1c2430; background: #fff; max-width: 1080px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 8px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 34px 0 8px; padding-top: 14px; border-top: 1px solid #d9dee5; }
p { max-width: 88ch; margin: 8px 0; overflow-wrap: anywhere; }
.note { background: #fdf3dc; border-left: 4px solid #d99a1c; padding: 8px 12px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 12px 0; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid #e6e9ee; }
th { border-bottom: 2px solid #9aa5b4; font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 2px; white-space: nowrap; }
.facts td { text-align: left; overflow-wrap: anywhere; vertical-align: top; }
.facts td:first-child { color: #5a6675; white-space: nowrap; }
tr.total td { font-weight: 600; border-top: 2px solid #9aa5b4; }
small { color: #5a6675; font-size: 12px; font-weight: 400; white-space: nowrap; }
code { background: #f1f3f6; padding: 0 4px; border-radius: 3px; font-size: 92%; }
figure { margin: 16px 0; }
img { max-width: 100%; height: auto; }
figcaption { color: #5a6675; font-size: 13px; }
footer { margin-top: 40px; color: #5a6675; font-size: 13px; }
@media print {
  @page { margin: 14mm; }
  body { font-size: 11px; padding: 0; max-width: none; }
  table { font-size: 9.5px; } th, td { padding: 2px 6px; } small { font-size: 8.5px; }
  h2 { break-after: avoid; } figure, tr { break-inside: avoid; } thead { display: table-header-group; }
  .wide { overflow: visible; }
}
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
{body}
<footer>Research and teaching only. Not for clinical use.</footer>
</body>
</html>
"""


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
