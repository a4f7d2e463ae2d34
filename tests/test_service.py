"""The line before the processor, what strangers send, the checkpoints there are, and one image explained."""
import io
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_checkpoints import FINDINGS, RECIPES, blank_png, phantom_png, write_checkpoints

from cxr.errors import InputError
from cxr.serving.job_queue import Busy, Desk
from cxr.serving.service import Limits, Service
from cxr.serving.uploads import read_upload
from cxr.weights import save_weights
from cxr.weights.paddle_files import read_weights

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoints(folder)
    return folder


@pytest.fixture(scope="module")
def service(folder):
    return Service(RECIPES, [folder])


def checkpoint_of(service, recipe):
    return next(one for one in service.catalogue.scan()[0] if one.recipe == recipe)


# --- desk ---------------------------------------------------------------------------------------------------------

def test_desk_bounds_what_runs_and_what_waits_and_keeps_the_order():
    prepared, running, most, began = [], [], [], []
    go = threading.Event()
    lock = threading.Lock()

    def work(number):
        with lock:
            began.append(number)
            running.append(number)
            most.append(len(running))
        go.wait(10)
        with lock:
            running.remove(number)
        return number

    desk = Desk(2, 3, lambda: prepared.append(threading.current_thread()))
    assert len(set(prepared)) == 2                                    # before any job, every thread
    jobs = [desk.submit(work, number) for number in range(5)]
    assert [job.ahead() for job in jobs] == [0, 1, 2, 3, 4] and not jobs[4].done_within(0.05)
    with pytest.raises(Busy, match="5 requests"):
        desk.submit(work, 5)
    jobs[3].cancel()                                                  # gives its place away
    again = desk.submit(work, 6)
    go.set()
    assert [job.result() for job in (*jobs[:3], jobs[4], again)] == [0, 1, 2, 4, 6]
    assert max(most) == 2 and began == [0, 1, 2, 4, 6] and jobs[4].ahead() == 0


def test_desk_passes_exceptions_on_and_goes_on():
    desk = Desk(1, 1)
    with pytest.raises(ZeroDivisionError):
        desk.run(lambda: 1 / 0)
    assert desk.run(max, 1, 2) == 2
    with pytest.raises(KeyError):
        Desk(2, 1, {}.popitem)


# --- uploads ------------------------------------------------------------------------------------------------------

def zip_bytes() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("program.js", "alert(1)")
        return file.getvalue()


@pytest.mark.parametrize("tail, what", [
    (zip_bytes(), "a zip archive"),
    (zip_bytes()[:-2] + b"\x05\0hello", "a zip archive"),              # with a comment behind its directory
    (b"<!DOCTYPE html >", "a web page"),
    (b"<sCript>alert(1)</script>", "a web page"),
    (b"<?php system($_GET[1]); ?>", "a web page"),
])
def test_polyglots_are_refused(tail, what):
    with pytest.raises(InputError, match=f"x.png is an image and {what} at the same time"):
        read_upload(phantom_png(1) + tail, "x.png")


def test_polyglots_that_hide_in_front_are_refused():
    jpeg = cv2.imencode(".jpg", np.zeros((64, 64), np.uint8))[1].tobytes()
    comment = b"%PDF-1.7"
    with pytest.raises(InputError, match="and a PDF at"):
        read_upload(jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:], "x.jpg")
    with pytest.raises(InputError, match="and a program at"):
        read_upload(b"MZ" + bytes(126) + b"DICM" + bytes(500), "x.dcm")


def test_what_is_no_image_at_all_is_called_by_its_name():
    for data, what in ((zip_bytes(), "zip archive: unpack"), (b"<html>", "web page, not"), (b"%PDF-1.4 ", "is a PDF")):
        with pytest.raises(InputError, match=what):
            read_upload(data, "x")


def test_ordinary_images_pass():
    assert (read_upload(phantom_png(3) + bytes(100), "x.png")[..., 0] == read_upload(phantom_png(3), "x")[..., 0]).all()
    rng = np.random.default_rng(0)                                    # no signature is found in noise
    noise = rng.integers(0, 256, (512, 512, 3), np.uint8)
    for suffix in (".png", ".jpg", ".bmp", ".tiff"):
        assert read_upload(cv2.imencode(suffix, noise)[1].tobytes(), "x").shape == (512, 512, 3)


def test_too_much_is_refused_quickly():
    began = time.perf_counter()
    with pytest.raises(InputError, match="too large .more than 40 million pixels"):
        read_upload(blank_png(20_000), "x.png")
    with pytest.raises(InputError, match="too large .65 MB, at most 64"):
        read_upload(bytes(65 << 20), "x.png")
    assert time.perf_counter() - began < 10


# --- catalogue ----------------------------------------------------------------------------------------------------

def test_catalogue_tells_checkpoints_by_their_metadata(folder, tmp_path):
    state, meta = read_weights(folder / "resnet" / "best.pdparams")
    small = {"fc.weight": state["fc.weight"]}
    for name, own in {"last": meta, "bare": None, "other": {**meta, "recipe": "swin"}}.items():
        save_weights(small, tmp_path / "run" / f"{name}.pdparams", own)
    save_weights(small, tmp_path / "run" / "best.pdparams", meta)
    (tmp_path / "broken.pdparams").write_bytes(b"none")
    (tmp_path / ".hidden.pdparams").write_bytes(b"none")
    catalogue = Service(RECIPES, [tmp_path, tmp_path / "nowhere"]).catalogue
    usable, refused = catalogue.scan()
    assert [one.path.name for one in usable] == ["best.pdparams", "last.pdparams"]
    assert usable[0].recipe == "covid_resnet" and usable[0].class_names == RECIPES["covid_resnet"].class_names
    assert [any(words in sentence for sentence in refused)
            for words in ("broken.pdparams is damaged", "bare.pdparams does not say", "other.pdparams belongs to swin")
            ] == [True] * 3 and len(refused) == 3
    save_weights({"fc.weight": state["fc.weight"] + 1}, tmp_path / "run" / "best.pdparams", meta)
    assert catalogue.scan()[0][0].sha256 != usable[0].sha256           # another content, another checkpoint


def test_a_checkpoint_that_changed_after_it_was_listed_is_not_taken_for_the_old_one(tmp_path):
    paths = write_checkpoints(tmp_path)
    service = Service(RECIPES, [tmp_path])
    listed = checkpoint_of(service, "covid_resnet")
    paths["covid_resnet"].write_bytes(paths["chexnet"].read_bytes())
    with pytest.raises(InputError, match="has changed since it was listed"):
        service.model(listed)


# --- service ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("recipe", ["covid_resnet", "chexnet"])
def test_one_image_is_explained_as_by_the_toolbox(service, recipe):
    from cxr.cam import GradCAM
    from cxr.metrics.classification import scores_from_logits
    checkpoint = checkpoint_of(service, recipe)
    seen = service.read(checkpoint, phantom_png(2, 512), "a.png")
    reading = service.explain(checkpoint, seen, "gradcam")
    model = service.model(checkpoint)
    x = model.preprocess(read_upload(phantom_png(2, 512), "a.png"))[None]
    own = GradCAM(model.model, model.last)
    maps = own(x, targets="all")[0]
    assert np.abs(reading.maps / 255 - maps).max() < 0.01 and reading.maps.dtype == np.uint8
    assert np.abs(scores_from_logits(own.scores.numpy()[:, None], model.activation)[0] - reading.scores).max() < 1e-4
    assert reading.exclusive == (recipe == "covid_resnet") and reading.layer == model.last == list(model.layers)[0]
    assert (np.diff(reading.scores[reading.order]) <= 0).all()
    # CheXNet crops: the picture is the same part as the view, in more pixels.
    small = cv2.resize(seen.picture, seen.view.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert seen.picture.shape[0] > seen.view.shape[0] and np.abs(small.astype(int) - seen.view).mean() < 6
    assert seen.shape == (512, 512) and len(seen.sha256) == 64


def test_thresholds_travel_with_the_reading(service):
    checkpoint = checkpoint_of(service, "chexnet")
    reading = service.explain(checkpoint, service.read(checkpoint, phantom_png(1), "a.png"), "cam")
    assert reading.thresholds["Mass"] == 1 and reading.class_names == FINDINGS
    other = checkpoint_of(service, "covid_resnet")
    assert service.explain(other, service.read(other, phantom_png(1), "a.png"), "cam").thresholds == {}


def test_methods_and_layers(service):
    checkpoint = checkpoint_of(service, "covid_resnet")
    seen = service.read(checkpoint, phantom_png(1), "a.png")
    assert service.explain(checkpoint, seen, "layercam", "block.3").maps.shape == (4, 224, 224)
    assert service.explain(checkpoint, seen, "ablationcam").maps.any()
    for method, layer, words in (("ablationcam", "block.3", "a forward for every channel"),
                                 ("gradcam", "block.99", "close names"), ("magic", None, "no method 'magic'")):
        with pytest.raises(InputError, match=words):
            service.explain(checkpoint, seen, method, layer)


def test_few_models_are_kept(folder):
    service = Service(RECIPES, [folder], Limits(models=1), engine="dygraph")
    one, other = (checkpoint_of(service, name) for name in ("covid_resnet", "chexnet"))
    first = service.model(one)
    assert service.model(one) is first
    service.model(other)
    assert service.model(one) is not first


@pytest.mark.parametrize("engine, layer", [("auto", None), ("dygraph", "block.5")])
def test_twenty_at_once_get_what_they_would_get_alone(folder, engine, layer):
    """Hooks, graphs and the engine's buffers belong to a call; two models and three methods at the same time."""
    service = Service(RECIPES, [folder], Limits(computing=4), engine)
    recipes = ("covid_resnet", "chexnet") if layer is None else ("covid_resnet",)
    tasks = [(checkpoint_of(service, recipes[k % len(recipes)]), k, ("gradcam", "layercam", "eigencam")[k % 3], layer)
             for k in range(20)]

    def whole(checkpoint, seed, method, layer):
        return service.explain(checkpoint, service.read(checkpoint, phantom_png(seed), f"{seed}.png"), method, layer)
    alone = [whole(*task) for task in tasks]
    together = [None] * 20

    def user(k):
        together[k] = service.desk.run(whole, *tasks[k])
    users = [threading.Thread(target=user, args=(k,)) for k in range(20)]
    for thread in users:
        thread.start()
    for thread in users:
        thread.join()
    for (_, seed, method, _), one, other in zip(tasks, alone, together):
        assert other.seen.name == f"{seed}.png" and other.method == method
        assert np.abs(one.scores - other.scores).max() < 1e-5
        assert np.abs(one.maps.astype(int) - other.maps).max() <= 1
    assert len({reading.scores.tobytes() for reading in together}) == 20      # no two alike: nothing is mixed up


def test_every_thread_of_the_desk_runs_paddle_in_dynamic_mode():
    """Paddle keeps its mode for each thread: once the one that imported it has ended, new ones begin in static mode."""
    code = """
import threading
from cxr.runtime import load_paddle
from cxr.serving.service import Limits, Service
first = threading.Thread(target=load_paddle)
first.start()
first.join()
service, together = Service({}, [], Limits(computing=3)), threading.Barrier(3)
def mode():
    import paddle
    together.wait(30)
    return paddle.in_dynamic_mode()
jobs = [service.desk.submit(mode) for _ in range(3)]
assert all([job.result() for job in jobs])
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)
