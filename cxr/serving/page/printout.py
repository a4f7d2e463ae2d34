"""What can be downloaded: tables of scores, and the report, one page of HTML that prints on one sheet."""
from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

from cxr.cam.registry import METHOD_NAMES
from cxr.explain.manifest import BOX_THRESHOLD
from cxr.serving.page.markup import STYLE, Look, Naming, figure, heat_picture, map_notes, score_bars, score_notes, tiles
from cxr.serving.page.texts import speaker
from cxr.serving.service import Reading
from cxr.utils.files import csv_text, json_text
from cxr.visual import pages
from cxr.visual.heatmaps import cam_montage, drawable_names
from cxr.visual.image_files import encode


def scores_csv(readings: Sequence[Reading]) -> str:
    """A row for each image with the probability of every class, as `tools/cam.py` writes `scores.csv`."""
    return csv_text(["image", *readings[0].class_names],
                    ([reading.seen.name, *(f"{score:.7g}" for score in reading.scores)] for reading in readings))


def montage_png(reading: Reading) -> bytes:
    """The published montage as a PNG file: the original, then every class in the order of the model, 5 in a row."""
    names = drawable_names(reading.class_names)
    captions = [f"{name}: {score * 100:.2f}%" for name, score in zip(names, reading.scores)]
    return encode(cam_montage(reading.seen.view, reading.maps, captions))


def scores_json(readings: Sequence[Reading], look: Look) -> str:
    """`cxr.serving.service.Reading.manifest` of every image, as a JSON list; boxes are those that the page draws."""
    return json_text([reading.manifest(look.boxes or BOX_THRESHOLD) for reading in readings])


def report(reading: Reading, index: int, look: Look, language: str, naming: Naming) -> str:
    """A self-contained page of HTML: picture, map of a class, scores, all classes, and how it was made.

    Args:
        reading: of the image.
        index: of the class whose map is shown large.
        look: how maps are shown.
        language: of `cxr.serving.page.texts.LANGUAGES`.
        naming: what a class is called in it.

    Returns:
        The page.
    """
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
    return pages.render(
        "printout.html", language=language, title=say("report_of", name=seen.name), disclaimer=say("disclaimer"),
        parts_style=pages.html(STYLE), original=pages.html(figure(seen.picture, say("original"))),
        heat_map=pages.html(figure(heat, say("heat_map", method=method, finding=finding))),
        scores=pages.html(score_bars(reading, say, naming, index)), sentences=sentences,
        all_classes=say("all_classes"), tiles=pages.html(tiles(reading, look, say, naming)),
        details=say("report_details"), facts=facts)
