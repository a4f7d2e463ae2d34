"""The page's texts, its pieces of HTML, and what can be downloaded, without a browser."""
import csv
import io
import json
import re
import string
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_checkpoints import RECIPES

from chexnet.utility import CLASS_NAMES
from cxr.cam.registry import METHOD_NAMES
from cxr.data.transforms import Preprocess
from cxr.explain.explanation import Provenance, Seen
from cxr.metrics.thresholds import Operating
from cxr.models.catalogue import Checkpoint
from cxr.serving.page import markup, printout
from cxr.serving.page.markup import Look
from cxr.serving.page.texts import LANGUAGES, TEXTS, naming, speaker
from cxr.serving.service import Reading

ROOT = Path(__file__).resolve().parent.parent
SAY = speaker("en")


@pytest.fixture
def reading():
    """Three findings; the map of the second is one square, that of the third flat."""
    maps = np.zeros((3, 224, 224), np.uint8)
    maps[0] = np.arange(224, dtype=np.uint8)
    maps[1, 56:112, 0:112] = 255
    grey = np.full((448, 448, 3), 100, np.uint8)
    seen = Seen("<em>a&b</em>.png", "ab" * 32, (512, 1024), cv2.resize(grey, (224, 224)), grey, ("It is lateral.",))
    checkpoint = Checkpoint(Path("run/best.pdparams"), "chexnet", ("Effusion", "Mass", "Hernia"), "cd" * 32)
    operating = Operating({"Effusion": 0.2, "Mass": 0.8, "Hernia": float("nan")}, {}, "youden", "val.txt")
    return Reading(seen, Provenance(checkpoint, Preprocess(), "sigmoid", "gradcam", "last", operating),
                   np.array([0.25, 0.75, 0.5]), np.arange(3), maps)


def from_elsewhere(reading, **changes):
    """The same scores and maps from a model that differs in `changes`."""
    return replace(reading, provenance=replace(reading.provenance, **changes))


def fields(text: str) -> set:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_language_has_every_text_with_the_same_values():
    assert set(TEXTS) == set(LANGUAGES)
    for language, table in TEXTS.items():
        assert list(table) == list(TEXTS["en"]), language
        for key, text in table.items():
            assert fields(text) == fields(TEXTS["en"][key]) and text.strip(), (language, key)
    assert TEXTS["zh"]["disclaimer"] == "仅供研究,不可用于诊断"
    assert TEXTS["en"]["disclaimer"] == "Research use, not for diagnosis"
    same = [key for key in TEXTS["en"] if TEXTS["en"][key] == TEXTS["zh"][key]]
    assert same == [], "not translated"


def test_every_text_is_used_and_every_text_used_exists():
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "cxr" / "serving" / "page").glob("*.py")
                   if path.name != "texts.py")
    asked = set(re.findall(r"""say\(["'](\w+)["']""", code))
    assert asked <= set(TEXTS["en"])
    assert {key for key in TEXTS["en"] if f'"{key}"' not in code and f"'{key}'" not in code} == set()


def test_every_method_and_every_class_of_the_recipes_has_a_name():
    from cxr.cam import METHODS
    assert set(METHOD_NAMES) == set(METHODS)
    name = naming("zh", RECIPES.values())
    for recipe in RECIPES.values():
        assert set(recipe.translations["zh"]) == set(recipe.class_names)
    assert name("Effusion") == "胸腔积液 Effusion" and name("Unknown") == "Unknown"
    assert naming("en", RECIPES.values())("Effusion") == "Effusion" and "Effusion" in CLASS_NAMES


def test_bars_are_sorted_and_marked(reading):
    html = markup.score_bars(reading, SAY, str, chosen=2)
    rows = re.findall(r"<tr.*?</tr>", html)[1:]
    assert [re.search(r"<td>(\w+)<", row).group(1) for row in rows] == ["Mass", "Hernia", "Effusion"]
    assert "width:75.00%" in rows[0] and "left:80.00%" in rows[0] and "called" not in rows[0]
    assert "chosen" in rows[1] and "<b style" not in rows[1] and rows[1].endswith('number">-</td></tr>')
    assert "width:25.00%" in rows[2] and 'class="cxr-bar called"' in rows[2] and "20.00\xa0% called" in rows[2]
    assert "Threshold" not in markup.score_bars(from_elsewhere(reading, operating=None), SAY, str)


def test_the_highest_of_exclusive_classes_is_called_on_the_page_as_in_the_manifest(reading):
    exclusive = from_elsewhere(reading, activation="softmax", operating=None)
    rows = markup.score_bars(exclusive, SAY, str).split("<tr")[2:]
    assert ["cxr-bar called" in row for row in rows] == [True, False, False] and "Mass" in rows[0]
    assert [finding["called"] for finding in exclusive.manifest()["findings"]] == [True, False, False]


def test_heat_picture_blends_and_draws_boxes(reading):
    assert (markup.heat_picture(reading, 1, Look(0)) == reading.seen.picture).all()
    from cxr.visual.heatmaps import heat
    full = markup.heat_picture(reading, 1, Look(1, "viridis"))
    assert (full[130, 50] == heat(np.array([[255]], np.uint8), "viridis")[0, 0]).all()
    boxed = markup.heat_picture(reading, 1, Look(0, boxes=0.5))
    rows, columns = np.nonzero((boxed == 255).all(-1))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (0, 112, 224, 224)      # twice the view's pixels


def test_notes_tell_what_a_map_does_not(reading):
    assert markup.map_notes(reading, 0, Look(), SAY) == ["It is lateral."]                   # above its threshold
    assert "75.00" in markup.map_notes(reading, 1, Look(), SAY)[1]                           # below its own
    assert markup.map_notes(reading, 2, Look(), SAY)[1] == SAY("flat")
    assert "60%" in markup.map_notes(reading, 0, Look(boxes=0.6), SAY)[1]
    assert markup.score_notes(from_elsewhere(reading, activation="softmax"), SAY) == [SAY("score_note_exclusive")]


def test_tables(reading):
    other = replace(reading, seen=replace(reading.seen, name="b,c.png"), scores=np.array([1, 0, 1e-9]))
    header, first, second = csv.reader(io.StringIO(printout.scores_csv([reading, other])))
    assert header == ["image", "Effusion", "Mass", "Hernia"] and first == ["<em>a&b</em>.png", "0.25", "0.75", "0.5"]
    assert second == ["b,c.png", "1", "0", "1e-09"]
    one, two = json.loads(printout.scores_json([reading, other], Look(boxes=0.6)))
    assert two["image"]["name"] == "b,c.png" and one["box_threshold"] == 0.6
    mass, hernia, effusion = one["findings"]
    assert (mass["class"], mass["score"], mass["threshold"], mass["called"]) == ("Mass", 0.75, 0.8, False)
    assert effusion["called"] and hernia["threshold"] is None and hernia["boxes"] == []
    # 512 x 1024 was resized to 256 x 512, of which the view begins at row 16, column 144.
    assert mass["boxes"] == [{"x": 288, "y": 144, "width": 224, "height": 112, "score": 1}]
    assert one["model"]["checkpoint_sha256"] == "cd" * 32 and one["image"]["sha256"] == "ab" * 32
    assert one["model"]["checkpoint"] == "best.pdparams" and one["method"]["layer"] == "last"


class Tags(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("language", LANGUAGES)
def test_report_is_one_page_that_carries_everything_and_runs_nothing(reading, language):
    page = Tags(printout.report(reading, 1, Look(boxes=0.5), language, naming(language, RECIPES.values())))
    text = " ".join(page.text)
    assert text.count(TEXTS[language]["disclaimer"]) == 2 and "ab" * 32 in text and "cd" * 32 in text
    assert "<em>a&b</em>.png" in text and "em" not in page.tags            # escaped, so it is text
    assert "script" not in page.tags and "link" not in page.tags
    sources = [value for tag, name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 2 + 4 and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert "It is lateral." in text
    if language == "zh":
        assert "肿块 Mass" in text and not any(english in text for english in ("Scores", "Original", "Checkpoint"))


def test_montage_is_the_published_one(reading):
    picture = cv2.imdecode(np.frombuffer(printout.montage_png(reading), np.uint8), 1)
    assert picture.shape == (224, 4 * 224, 3)
