"""The report as Markdown, JSON and one HTML page that needs nothing beside it."""
import base64
import html.parser
import json
import math
import re

import numpy as np
import pytest

from cxr.data.images import read_image
from cxr.evaluation.report import Note, Picture, Section, Table, save_report

IMAGE = np.full((30, 60, 3), 200, np.uint8)
SECTIONS = [
    Section("data", "What was judged", [Table((), [("List", "a|b.txt")]), Note("Beware of <b>.")], {"Images": 3}),
    Section("ranking", "Ranking & more", ["Some `code` and **bold** text.", Table(
        ["Type", "AUROC"], [["Mass", "0.8 (0.7 to 0.9)"], ["Mean", "nan"]], ("Mean",)),
        Picture("grey", IMAGE, "A \"grey\" picture.", 150)], {"Mass": {"AUROC": 0.8, "p": math.nan}}),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    assert save_report(folder, "A <title>", SECTIONS) == folder / "report.html"
    return folder


def test_markdown(folder):
    text = (folder / "report.md").read_text()
    assert text.startswith("# A &lt;title>\n\n## What was judged\n\n|  |  |\n| --- | --- |\n| List | a\\|b.txt |\n")
    assert "> **Note.** Beware of &lt;b>." in text and "| **Mean** | **nan** |" in text
    assert "| Type | AUROC |\n| --- | ---: |\n| Mass | 0.8 (0.7 to 0.9) |" in text
    assert read_image(folder / re.search(r"\]\((.*)\)", text)[1]).shape == (30, 60, 3)


def test_json_holds_the_numbers_and_null_for_nan(folder):
    assert json.loads((folder / "report.json").read_text()) == {
        "title": "A <title>", "data": {"Images": 3}, "ranking": {"Mass": {"AUROC": 0.8, "p": None}}}


class Balanced(html.parser.HTMLParser):
    """Collects tags, and fails where one is closed that is not open."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_one_file_with_everything_inside(folder):
    page = (folder / "report.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    sources = [attributes["src"] for tag, attributes in parser.seen if tag == "img"]
    assert [source[:22] for source in sources] == ["data:image/png;base64,"]
    assert base64.b64decode(sources[0][22:]) == (folder / "grey.png").read_bytes()
    assert not re.search(r"(?:src|href)=\"(?!data:)|url\(|@import|<script", page)
    assert "A &lt;title&gt;" in page and "Beware of &lt;b&gt;." in page and "Ranking &amp; more" in page
    assert "<code>code</code>" in page and "<strong>bold</strong>" in page
    assert "0.8 <small>(0.7 to 0.9)</small>" in page and '<tr class="total"><td>Mean</td>' in page
    widths = [attributes["width"] for tag, attributes in parser.seen if tag == "img"]
    assert widths == ["38"]                                      # 60 pixels at 150 to the inch


def test_a_class_name_is_text_wherever_it_stands(tmp_path):
    name = "<script>alert(1)</script> &lt;"
    blocks = [f"Of {name}.", Note(f"Of {name}."), Table(["Type", name], [[name, "1"]], (name,)),
              Picture("grey", IMAGE, f"Of {name}.")]
    save_report(tmp_path, name, [Section("data", name, blocks)])
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and page.count("&lt;script&gt;alert(1)&lt;/script&gt; &amp;lt;") == 9
    text = (tmp_path / "report.md").read_text()
    assert "<" not in text and text.count("&lt;script>alert(1)&lt;/script> &amp;lt;") == 7
