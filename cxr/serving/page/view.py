"""What is on the screen. The only module that knows Streamlit."""
from __future__ import annotations

import functools
import logging
import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from cxr.cam.registry import METHOD_NAMES
from cxr.data import phantom
from cxr.errors import InputError
from cxr.explain.manifest import BOX_THRESHOLD
from cxr.models.catalogue import Checkpoint
from cxr.serving.job_queue import Busy
from cxr.serving.page import markup, printout
from cxr.serving.page.markup import Look, Naming
from cxr.serving.page.texts import LANGUAGES, naming, speaker
from cxr.serving.service import Reading, Service
from cxr.visual.heatmaps import COLORMAPS
from cxr.visual.image_files import encode

MOST_IMAGES = 20                                     # shown to one user at a time
PHANTOMS = [(label, seed) for seed in (1, 2) for label in range(len(phantom.CLASS_NAMES))]
_KEPT = 2 * MOST_IMAGES                              # results of one user, some 3 MB each

_log = logging.getLogger(__name__)

_STYLE = f"""<style>{markup.STYLE}
.cxr-disclaimer{{position:fixed;left:0;right:0;bottom:0;z-index:1000;background:#b00020;color:#fff;text-align:center;
  font-weight:700;padding:.35em 1em}}
.stMainBlockContainer{{padding-top:2.5rem;padding-bottom:4rem}}
</style>"""


@dataclass(frozen=True)
class Image:
    """An image that the user chose.

    Attributes:
        key: what it is known by in this session.
        name: what the page calls it.
        content: gives the content of its file.
    """
    key: str
    name: str
    content: Callable[[], bytes]


def keep_uploads_in_memory() -> None:
    """Have Starlette, which receives Streamlit's uploads, hold them in memory: it would write those above 1 MB to disk.

    Their size is bounded by `server.maxUploadSize` all the same.
    """
    from starlette.formparsers import MultiPartParser
    MultiPartParser.spool_max_size = sys.maxsize


def _guarded(draw: Callable) -> Callable:
    """No stack trace on the page: the log gets it, the user a sentence."""
    @functools.wraps(draw)
    def careful(*arguments: Any) -> None:
        try:
            draw(*arguments)
        except Busy:
            st.warning(_say("busy"))
        except InputError as error:
            _refuse(str(error))
        except Exception:
            _log.exception("the page failed")
            st.error(_say("failed"))
    return careful


def _say(key: str, **values: Any) -> str:
    return speaker(st.session_state.language)(key, **values)


def _plain(text: str) -> str:
    """Text in which Markdown finds nothing to do, whatever a file is called."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:])", r"\\\1", text)


def _refuse(sentence: str) -> None:
    st.error(f"{_say('unreadable')} {_plain(sentence)}")


def show(make_service: Callable[[], Service]) -> None:
    """Draw the page of a session.

    Args:
        make_service: gives the service that all sessions share; the page says that it is starting meanwhile.
    """
    st.set_page_config(page_title="paddle-cxr", layout="wide")
    if "language" not in st.session_state:
        asked = st.query_params.get("lang") or (st.context.locale or "")[:2]
        st.session_state.language = asked if asked in LANGUAGES else "en"
    st.html(_STYLE)
    _page(make_service)


@_guarded
def _page(make_service: Callable[[], Service]) -> None:
    title, language = st.columns([4, 1], vertical_alignment="center")
    language.radio("Language / 语言", LANGUAGES, key="language", format_func=LANGUAGES.get, horizontal=True,
                   label_visibility="collapsed")
    title.header(_say("title"), anchor=False)
    st.html(f'<div class="cxr-disclaimer" role="note">{_say("disclaimer")}</div>')
    st.caption(_say("intro"))
    with st.spinner(_say("starting")):
        service = make_service()
        if "checkpoints" not in st.session_state:    # once a session: reading the metadata of new files takes a moment
            st.session_state.checkpoints = service.catalogue.scan()
    for note in service.device.notes:
        st.warning(_plain(note))
    usable, refused = st.session_state.checkpoints
    if not usable:
        _no_models(service)
    else:
        images = _chosen_images(service)
        settings = _settings(service, usable)
        if images:
            readings = _readings(service, images, *settings)
            if readings:
                _result(service, readings)
        else:
            st.info(_say("nothing_yet"))
    if refused:
        with st.expander(_say("unusable", count=len(refused))):
            st.markdown("\n".join(f"- {_plain(sentence)}" for sentence in refused))


def _no_models(service: Service) -> None:
    st.subheader(_say("no_models"), anchor=False)
    st.markdown(_say("no_models_how", folders=", ".join(f"`{_short(path)}`" for path in service.catalogue.folders)))
    st.code("python tools/demo.py", language="bash")
    for recipe in service.recipes.values():
        if recipe.published:
            st.markdown(_say("no_models_published", name=recipe.name, source=_plain(recipe.published_source)))


def _short(path: Path) -> str:
    """A path as the operator would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _chosen_images(service: Service) -> list[Image]:
    left, right = st.columns(2)
    files = left.file_uploader(
        _say("upload", megabytes=service.limits.max_bytes >> 20, megapixels=service.limits.max_pixels // 10 ** 6),
        accept_multiple_files=True, key="files")
    name = naming(st.session_state.language, service.recipes.values())
    options = {which: _say("phantom", number=which[1], finding=name(phantom.CLASS_NAMES[which[0]]))
               for which in PHANTOMS}
    chosen = right.multiselect(_say("phantoms"), PHANTOMS, key="phantoms", format_func=options.get,
                               placeholder=_say("phantoms_hint"))
    images = [Image(file.file_id, file.name, file.getvalue) for file in files]
    images += [Image(f"phantom-{label}-{seed}", f"phantom-{phantom.CLASS_NAMES[label]}-{seed}.png",
                     functools.partial(_draw_phantom, label, seed)) for label, seed in chosen]
    if len(images) > MOST_IMAGES:
        st.warning(_say("too_many", most=MOST_IMAGES))
    return images[:MOST_IMAGES]


@functools.lru_cache(maxsize=len(PHANTOMS))
def _draw_phantom(label: int, seed: int) -> bytes:
    import cv2
    return cv2.imencode(".png", phantom.draw(label, seed, 768).image)[1].tobytes()


def _settings(service: Service, usable: Sequence[Checkpoint]) -> tuple[Checkpoint, str, str]:
    """(checkpoint, method, layer) as chosen."""
    left, middle, right = st.columns([2, 1, 2])
    checkpoint = left.selectbox(_say("model"), usable, key="model",
                                format_func=lambda listed: f"{listed.recipe}: {_short(listed.path)}")
    facts = st.session_state.setdefault("facts", {})
    if checkpoint not in facts:
        model = _wait(service, _say("starting"), service.model, checkpoint)
        facts[checkpoint] = (model.default_method, list(model.layers.items()))
    default, layers = facts[checkpoint]
    methods = list(METHOD_NAMES)
    method = middle.selectbox(_say("method"), methods, index=methods.index(default), format_func=METHOD_NAMES.get,
                              key=f"method-{checkpoint.sha256}")
    last = layers[0][0]
    options = {name: f"{_say('last_layer', name=name) if name == last else name} [{' x '.join(map(str, shape))}]"
               for name, shape in layers}
    layer = right.selectbox(_say("layer"), list(options), format_func=options.get, key=f"layer-{checkpoint.sha256}")
    return checkpoint, method, layer


def _wait(service: Service, message: str, work: Callable, *arguments: Any) -> Any:
    """Do work when its turn comes, and say meanwhile how many are before it; leave the line if the user does."""
    job = service.desk.submit(work, *arguments)
    spot = st.empty()
    try:
        while not job.done_within(0.3):
            ahead = max(0, job.ahead() - service.limits.computing + 1)
            spot.info(_say("in_line", ahead=ahead) if ahead else message)
        return job.result()
    finally:
        job.cancel()
        spot.empty()


def _remembered(key: tuple, compute: Callable[[], Any]) -> Any:
    """A result of this session alone; the least recently used are forgotten."""
    kept = st.session_state.setdefault("kept", OrderedDict())
    if key not in kept:
        kept[key] = compute()
        while len(kept) > 2 * _KEPT:                 # an image and its reading
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


def _reading(service: Service, image: Image, checkpoint: Checkpoint, method: str, layer: str | None) -> Reading:
    message = _say("working", name=_plain(image.name))
    seen = _remembered((image.key, checkpoint.sha256), lambda: _wait(
        service, message, service.read, checkpoint, image.content(), image.name))
    return _remembered((image.key, checkpoint.sha256, method, layer), lambda: _wait(
        service, message, service.explain, checkpoint, seen, method, layer))


def _readings(service: Service, images: list[Image], checkpoint: Checkpoint, method: str,
              layer: str) -> dict[str, Reading]:
    """What can be read, by the images' keys; a sentence on the page for each of the others."""
    readings = {}
    for image in images:
        try:
            readings[image.key] = _reading(service, image, checkpoint, method, layer)
        except InputError as error:
            _refuse(str(error))
    return readings


@st.fragment
@_guarded
def _result(service: Service, readings: dict[str, Reading]) -> None:
    """Everything below the settings; runs alone when one of its controls is moved, and computes no map again."""
    name = naming(st.session_state.language, service.recipes.values())
    key = next(iter(readings))
    if len(readings) > 1:
        st.subheader(_say("all_images"), anchor=False)
        st.html(markup.overview(readings.values(), _say, name))
        key = st.selectbox(_say("image"), list(readings), key="image", format_func=lambda k: readings[k].seen.name)
    reading = readings[key]
    left, right = st.columns([3, 2], gap="medium")
    with right:
        index, look = _chosen_look(reading, name)
        st.subheader(_say("scores"), anchor=False)
        st.html(markup.score_bars(reading, _say, name, index))
        for note in markup.score_notes(reading, _say):
            st.caption(note)
    with left:
        st.html(markup.figure(markup.heat_picture(reading, index, look), _say(
            "seen", name=reading.seen.name, method=METHOD_NAMES[reading.method],
            finding=name(reading.class_names[index]))))
        for note in markup.map_notes(reading, index, look, _say):
            st.caption(_plain(note))
        _downloads(reading, list(readings.values()), index, look, name)
    if st.toggle(_say("compare"), key="compare"):
        _compare(service, reading, key, index, look, name)
    st.subheader(_say("all_classes"), anchor=False)
    st.caption(_say("montage_note"))
    st.html(markup.tiles(reading, look, _say, name))


def _chosen_look(reading: Reading, name: Naming) -> tuple[int, Look]:
    """(class, how its map is shown)."""
    options = {-1: _say("highest"), **{k: name(finding) for k, finding in enumerate(reading.class_names)}}
    choice = st.selectbox(_say("class"), list(options), key=f"class-{reading.checkpoint.sha256}",
                          format_func=options.get)
    left, right = st.columns(2)
    opacity = left.slider(_say("opacity"), 0, 100, 40, 5, format="%d %%", key="opacity") / 100
    colormap = right.selectbox(_say("colormap"), list(COLORMAPS), key="colormap")
    boxes = None
    if st.toggle(_say("boxes"), key="boxes"):
        boxes = st.slider(_say("boxes_share"), 10, 95, round(BOX_THRESHOLD * 100), 5, format="%d %%", key="share") / 100
    return int(reading.order[0]) if choice < 0 else choice, Look(opacity, colormap, boxes)


def _compare(service: Service, reading: Reading, key: str, index: int, look: Look, name: Naming) -> None:
    others = [method for method in METHOD_NAMES if method != reading.method]
    method = st.selectbox(_say("second_method"), others, format_func=METHOD_NAMES.get, key="second")
    columns = st.columns(2)
    pair = [reading, _remembered((key, reading.checkpoint.sha256, method, reading.layer), lambda: _wait(
        service, _say("working", name=_plain(reading.seen.name)), service.explain, reading.checkpoint, reading.seen,
        method, reading.layer))]
    for column, shown in zip(columns, pair):
        column.html(markup.figure(markup.heat_picture(shown, index, look), _say(
            "heat_map", method=METHOD_NAMES[shown.method], finding=name(shown.class_names[index]))))


def _downloads(reading: Reading, readings: list[Reading], index: int, look: Look, name: Naming) -> None:
    """Buttons; what they give is made when they are pressed."""
    stem = Path(reading.seen.name).stem
    language = st.session_state.language
    with st.container(horizontal=True):
        for key, file, mime, make in (
            ("download_picture", f"{stem}.{reading.method}.png", "image/png", lambda: encode(
                markup.heat_picture(reading, index, look))),
            ("download_montage", f"{stem}.all.png", "image/png", lambda: printout.montage_png(reading)),
            ("download_csv", "scores.csv", "text/csv", lambda: printout.scores_csv(readings)),
            ("download_json", "scores.json", "application/json", lambda: printout.scores_json(readings, look)),
            ("download_report", f"{stem}.html", "text/html", lambda: printout.report(
                reading, index, look, language, name)),
        ):
            st.download_button(_say(key), make, file, mime, key=key, on_click="ignore")
