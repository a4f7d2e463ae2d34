"""What can be downloaded: tables of scores, and the report, one page of HTML that prints on one sheet."""
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from html import escape

from cxr.cam.registry import METHOD_NAMES
from cxr.explain.manifest import BOX_THRESHOLD
from cxr.serving.page.markup import STYLE, Look, Naming, figure, heat_picture, map_notes, score_bars, score_notes, tiles
from cxr.serving.page.texts import speaker
from cxr.serving.service import Reading
from cxr.utils.files import csv_text, json_text
from cxr.visual.heatmaps import cam_montage, drawable_names
from cxr.visual.image_files import encode

_SHEET = """
@page{size:A4;margin:11mm}
*{box-sizing:border-box}
body{font:13px/1.4 system-ui,"Noto Sans","Noto Sans CJK SC","Microsoft YaHei",sans-serif;color:#111;background:#fff;
  max-width:188mm;margin:0 auto;padding:4mm}
h1{font-size:19px;margin:0 0 1mm;overflow-wrap:anywhere}h2{font-size:14px;margin:3mm 0 1mm}
.warning{border:1.5px solid #b00020;color:#b00020;font-weight:700;padding:1mm 3mm;display:inline-block}
.two{display:grid;grid-template-columns:1fr 1fr;gap:4mm}.three{display:grid;grid-template-columns:1fr 1fr 1.3fr;gap:4mm}
.cxr-tiles{grid-template-columns:repeat(auto-fill,minmax(21mm,1fr));gap:1.5mm}
.cxr-tiles figcaption{font-size:8px;line-height:1.2}
.cxr-scores th,.cxr-scores td{padding:1px 3px;font-size:11px}
dl{display:grid;grid-template-columns:max-content 1fr;gap:0 4mm;margin:0;font-size:10px}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}
@media (max-width:600px){.two,.three{grid-template-columns:1fr}}
@media print{body{padding:0;font-size:11px}.cxr-tiles,.cxr-figure,dl{break-inside:avoid}}
"""


def scores_csv(readings: Sequence[Reading]) -> str:
    """One row an image, the probability of every class, as `tools/cam.py` writes `scores.csv`."""
    return csv_text(["image", *readings[0].class_names],
                    ([reading.seen.name, *(f"{score:.7g}" for score in reading.scores)] for reading in readings))


def montage_png(reading: Reading) -> bytes:
    """The published montage: the original, then every class in the order of the model, 5 in a row."""
    names = drawable_names(reading.class_names)
    captions = [f"{name}: {score * 100:.2f}%" for name, score in zip(names, reading.scores)]
    return encode(cam_montage(reading.seen.view, reading.maps, captions))


def scores_json(readings: Sequence[Reading], look: Look) -> str:
    """`cxr.serving.service.Reading.manifest` of every image, as a JSON list; boxes where the page draws them."""
    return json_text([reading.manifest(look.boxes or BOX_THRESHOLD) for reading in readings])


def report(reading: Reading, index: int, look: Look, language: str, naming: Naming) -> str:
    """One self-contained page of HTML: picture, map of class `index`, scores, all classes, and how it was made."""
    say = speaker(language)
    seen, method = reading.seen, METHOD_NAMES[reading.method]
    finding = naming(reading.class_names[index])
    heat = heat_picture(reading, index, look)
    sentences = [*map_notes(reading, index, look, say), *score_notes(reading, say)]
    facts = {
        say("input"): f"{seen.name}, " + say("input_size", width=seen.shape[1], height=seen.shape[0],
                                             digest=seen.sha256),
        say("checkpoint"): f"{reading.checkpoint.recipe}, {reading.checkpoint.path.name}, SHA-256 "
                           f"{reading.checkpoint.sha256}",
        say("method"): f"{method}, {say('layer')} {reading.layer}",
        say("preprocessing"): ", ".join(f"{name} {value}" for name, value in reading.preprocess.to_dict().items()),
        say("versions"): ", ".join(f"{name} {version}" for name, version in reading.manifest()["versions"].items()),
        say("made"): datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return f"""<!DOCTYPE html>
<html lang="{language}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{escape(say("report_of", name=seen.name))}</title><style>{STYLE}{_SHEET}</style></head><body>
<h1>{escape(say("report_of", name=seen.name))}</h1>
<p class="warning">{escape(say("disclaimer"))}</p>
<div class="three">{figure(seen.picture, say("original"))}
{figure(heat, say("heat_map", method=method, finding=finding))}
<div>{score_bars(reading, say, naming, index)}</div></div>
{"".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)}
<h2>{escape(say("all_classes"))}</h2>
{tiles(reading, look, say, naming)}
<h2>{escape(say("report_details"))}</h2>
<dl>{"".join(f"<dt>{escape(name)}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items())}</dl>
<p class="warning">{escape(say("disclaimer"))}</p>
</body></html>
"""
