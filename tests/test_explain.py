"""From image files to CAM pictures: the pipeline of tools/cam.py, in one process."""
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from chexnet.recipe import CheXNetRecipe
from cxr.cam import CAM
from cxr.data.images import find_images, read_image
from cxr.errors import InputError
from cxr.explain.explanation import Provenance
from cxr.explain.exports import Exports, output_paths
from cxr.explain.network import choose_network, make_method
from cxr.explain.pipeline import Explained, Explainer, choose_classes
from cxr.explain.tables import older_files, score_table, summary, write_scores
from cxr.inference.predictor import EngineModel
from cxr.metrics.thresholds import Operating, remark
from cxr.models.catalogue import Checkpoint
from cxr.models.restore import restore
from cxr.visual.heatmaps import cam_montage
from cxr.visual.image_files import save_picture


@pytest.fixture(scope="module")
def chexnet(seeded_checkpoint):
    recipe = CheXNetRecipe()
    restored = restore(recipe, seeded_checkpoint, recipe.cam_preprocess, recipe.arch)
    return restored, CAM(restored.model, recipe.layer(restored.model))


def explainer(chexnet, classes="all", scale="class", operating=None, **options):
    restored, method = chexnet
    checkpoint = Checkpoint(Path("seeded.pdparams"), "chexnet", restored.class_names, "")
    provenance = Provenance(checkpoint, restored.preprocess, "sigmoid", "cam", "features", operating, scale=scale)
    return Explainer(method=method, provenance=provenance, classes=classes, **options)


def run(chexnet, inputs, folder, *arguments, **options):
    return explainer(chexnet, *arguments, **options).run(find_images(inputs), folder)


def test_published_scores_and_maps_through_the_pipeline(chexnet, reference_dir, data_dir, tmp_path, monkeypatch):
    reference = np.load(reference_dir / "chexnet_seed1.npz")
    names = sorted({key.split(".")[0] for key in reference.files})
    drawn = {}

    def keep(image, cams, captions, columns):
        drawn[len(drawn)] = (image, cams)
        return cam_montage(image, cams, captions, columns)
    monkeypatch.setattr("cxr.explain.drawing.cam_montage", keep)
    done = run(chexnet, [data_dir / "published_cams" / f"{name}.png" for name in names], tmp_path, workers=0)
    assert not done.failures
    for place, name in enumerate(names):
        assert np.abs(done.scores[f"{name}.png"] - reference[f"{name}.scores"]).max() < 1e-4
        image, cams = drawn[place]
        own = (255 * cams).astype(np.uint8).astype(int)
        assert (np.abs(own - reference[f"{name}.cams"].astype(int)) <= 1).mean() >= 0.995
        captions = [f"{c}: {s * 100:.2f}%" for c, s in zip(CheXNetRecipe.class_names, reference[f"{name}.scores"])]
        expected = cam_montage(image, reference[f"{name}.cams"], captions)
        picture = read_image(tmp_path / f"{name}.png")
        assert picture.shape == (672, 1120, 3)
        assert (np.abs(picture.astype(int) - expected.astype(int)) <= 2).mean() > 0.995


def test_each_stage_alone(chexnet, tmp_path):
    """What a notebook does with one image is what a run writes of it."""
    picture = np.random.default_rng(5).integers(0, 255, (300, 280, 3), dtype=np.uint8)
    save_picture(tmp_path / "in" / "x.png", picture)
    done = run(chexnet, [tmp_path / "in"], tmp_path / "run", [3, 1], exports=Exports(json=True))
    stages = explainer(chexnet, [3, 1], exports=Exports(json=True))
    seen, x = stages.read(tmp_path / "in" / "x.png", Path("sub/x.png"))
    assert seen.name == "sub/x.png" and seen.shape == (300, 280) and seen.path == tmp_path / "in" / "x.png"
    explanation, = stages.explain([seen], x[None])
    assert explanation.chosen.tolist() == [3, 1] and explanation.maps.shape == (2, 224, 224)
    assert explanation.raw.shape == (2, 7, 7) and explanation.products is None
    assert (explanation.scores == done.scores["x.png"]).all() and explanation.called == [None] * 14
    stages.write(explanation, tmp_path / "alone" / "x.png")
    assert (tmp_path / "alone" / "x.png").read_bytes() == done.pictures["x.png"].read_bytes()
    whole, alone = (json.loads((tmp_path / folder / "x.json").read_text()) for folder in ("run", "alone"))
    assert alone == {**whole, "image": {**whole["image"], "name": "sub/x.png"}}


def test_the_engine_runs_what_it_can_and_names_the_layer_as_the_model_does(chexnet):
    model, last = chexnet[0].model, CheXNetRecipe().layer(chexnet[0].model)
    fast = choose_network(model, last)
    assert fast.predictor is not None and fast.target == EngineModel.LAYER and fast.layer == last
    for options in ({"engine": "dygraph"}, {"shuffles_weights": True}, {"layer": "densenet121.conv1_func"}):
        plain = choose_network(model, last, **options)
        assert plain.model is model and plain.predictor is None
        assert plain.target == plain.layer == options.get("layer", last)
        with pytest.raises(InputError, match="plain Paddle, which knows float32 alone"):
            choose_network(model, last, precision="bfloat16", **options)
    assert make_method("scorecam", fast, top_k=3).top_k == 3


def test_odd_real_files_all_yield_a_picture(chexnet, data_dir, tmp_path):
    done = run(chexnet, [data_dir / "odd"], tmp_path, workers=2, batch_size=3)
    with_dicom = importlib.util.find_spec("pydicom") is not None
    assert len(done.failures) == 1 - with_dicom and len(done.pictures) == 8 + with_dicom
    for path in done.pictures.values():
        assert read_image(path).std() > 20


def test_bad_files_are_named_and_the_good_ones_done(chexnet, tmp_path):
    folder = tmp_path / "in"
    save_picture(folder / "good.png", np.random.default_rng(0).integers(0, 255, (300, 280, 3), dtype=np.uint8))
    save_picture(folder / "sub" / "black.png", np.zeros((256, 256, 3), np.uint8))
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("this is no image")
    (folder / "cut.png").write_bytes((folder / "good.png").read_bytes()[:5000])
    (folder / "small.bmp").write_bytes(b"BM")
    done = run(chexnet, [folder], tmp_path / "out")
    assert sorted(done.pictures) == ["good.png", "sub/black.png"]
    assert sorted(sentence.split(" ")[0].rsplit("/", 1)[1] for sentence in done.failures) == [
        "cut.png", "empty.png", "small.bmp", "text.png"]
    assert np.isfinite(done.scores["sub/black.png"]).all()
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")) == [
        "good.png", "sub/black.png"]


def test_ctrl_c_keeps_what_was_drawn(chexnet, tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    for index in range(6):
        save_picture(tmp_path / "in" / f"{index}.png", rng.integers(0, 255, (256, 256, 3), dtype=np.uint8))
    restored, method = chexnet
    calls = []

    class Interrupted:
        """The method, and Ctrl-C at its third batch."""

        def __call__(self, *arguments, **options):
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return method(*arguments, **options)

        def __getattr__(self, name):
            return getattr(method, name)
    done = run((restored, Interrupted()), [tmp_path / "in"], tmp_path / "out", "top", batch_size=2, workers=1)
    assert done.interrupted and list(done.scores) == list(done.sources)
    assert set(done.scores) == set(done.pictures) == {path.name for path in (tmp_path / "out").glob("*.png")}
    assert set(done.scores) <= {"0.png", "1.png", "2.png", "3.png"}


def test_classes_and_order_do_not_depend_on_batches(chexnet, tmp_path):
    rng = np.random.default_rng(1)
    for index in range(5):
        save_picture(tmp_path / "in" / f"{index}.png", rng.integers(0, 255, (256, 256, 3), dtype=np.uint8))
    one = run(chexnet, [tmp_path / "in"], tmp_path / "one", "top", batch_size=1, workers=0)
    many = run(chexnet, [tmp_path / "in"], tmp_path / "many", "top", batch_size=4, workers=3)
    assert list(one.scores) == list(many.scores) == [f"{index}.png" for index in range(5)]
    for name in one.scores:
        assert np.allclose(one.scores[name], many.scores[name], atol=1e-5)
        first, second = read_image(one.pictures[name]).astype(int), read_image(many.pictures[name]).astype(int)
        assert first.shape == (224, 448, 3) and np.abs(first - second).max() <= 3
    two = run(chexnet, [tmp_path / "in" / "0.png"], tmp_path / "two", [1, 13])
    assert read_image(two.pictures["0.png"]).shape == (224, 672, 3)


def test_choosing_classes():
    assert choose_classes("all", ("A", "B")) == "all" and choose_classes("top", ("A", "B")) == "top"
    assert choose_classes("b, A", ("A", "B")) == [1, 0]
    with pytest.raises(InputError, match="no class 'C': choose from A, B, all or top"):
        choose_classes("A,C", ("A", "B"))


def test_pictures_of_images_that_differ_in_their_suffix_alone(tmp_path):
    for name in ("a.png", "a.bmp", "b.png"):
        save_picture(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    paths = output_paths(find_images([tmp_path]), tmp_path / "out")
    assert [path.name for path in paths] == ["a.png", "a.png.png", "b.png"]


def test_pictures_of_awkward_names(tmp_path):
    images = [(tmp_path / name, Path(name)) for name in ("a.png", "a.jpg.png", "a.jpg", "a.bmp", "a.bmp.png", "a.tif")]
    names = [path.name for path in output_paths(images, tmp_path / "out")]
    assert names == ["a.png", "a.jpg.png", "a.jpg.2.png", "a.bmp.png", "a.bmp.png.png", "a.tif.png"]


@pytest.mark.parametrize("source", ["x.png", "x.guided.png", "x.cam.dcm"])
def test_no_picture_overwrites_an_image(tmp_path, source):
    (tmp_path / source).touch()
    images = [(tmp_path / source, Path(source)), (tmp_path / "x.jpg", Path("x.jpg"))]
    with pytest.raises(InputError, match="would overwrite an image to be read: choose another --save_dir"):
        output_paths(images, tmp_path / ".")


def test_tables(tmp_path):
    done = Explained(scores={"x.png": np.array([0.25, 0.75])})
    assert score_table(done, ("A", "B")).index("75.00 %") < score_table(done, ("A", "B")).index("25.00 %")
    done.scores.update({f"{index}.png": np.array([0.6, 0.4]) for index in range(30)})
    table = score_table(done, ("A", "B"))
    assert "A 60.00 %" in table and "... and 11 more images" in table
    write_scores(tmp_path / "scores.csv", done, ("A", "B"))
    assert (tmp_path / "scores.csv").read_text().splitlines()[:2] == ["image,A,B", "x.png,0.25,0.75"]


OPERATING = Operating({"A": 0.5, "B": float("nan")}, {"A": 0.02, "B": 0.4}, "youden", "val.txt")


def test_thresholds_in_tables():
    done = Explained(scores={"x.png": np.array([0.665, 0.3])})
    table = score_table(done, ("A", "B"), OPERATING)
    assert "66.50 %*" in table and "30.00 %*" not in table and "at or above its threshold (youden, val.txt)" in table
    assert "threshold 50 %, 33x its prevalence" in table and "0.7x its prevalence" in table
    done.scores["y.png"] = np.array([0.49, 0.6])
    table = score_table(done, ("A", "B"), OPERATING)
    assert "A 66.50 %*" in table and "A 49.00 % " in table
    assert "*" not in score_table(done, ("A", "B"))


def test_remark():
    assert remark("A", 0.5, None) == "" and remark("C", 0.5, OPERATING) == ""
    assert remark("A", 0.05, OPERATING) == "threshold 50 %, 2.5x its prevalence"


def test_one_scale_for_all_classes_and_plain_tiles(chexnet, tmp_path, monkeypatch):
    """The strongest evidence of an image alone is 1; order, captions and decisions follow the scores, not the batch."""
    from cxr.visual.heatmaps import evidence_montage
    rng, seen = np.random.default_rng(3), {}
    for index in range(2):
        image = rng.integers(0, 120 * (1 + index), (256, 256, 3), dtype=np.uint8)
        save_picture(tmp_path / "in" / f"{index}.png", image)

    def keep(image, classes, columns):
        seen.setdefault(folder, []).append(classes)
        return evidence_montage(image, classes, columns)
    monkeypatch.setattr("cxr.explain.drawing.evidence_montage", keep)
    names = chexnet[0].class_names
    operating = Operating(dict.fromkeys(names, 0.6), dict.fromkeys(names, 0.1), "youden", "val.txt")
    for folder, size in (("alone", 1), ("together", 2)):
        done = run(chexnet, [tmp_path / "in"], tmp_path / folder, batch_size=size, workers=0, scale="shared",
                   operating=operating)
        for classes, row in zip(seen[folder], done.scores.values()):
            assert [own.title for own in classes] == [f"{names[k]} {row[k] * 100:.1f} %" for k in np.argsort(-row)]
            assert [own.called for own in classes] == [row[k] >= 0.6 for k in np.argsort(-row)]
            cams = np.stack([own.cam for own in classes])
            assert cams.max() == 1 and cams.min() == 0
            assert sum(cam.max() == 1 for cam in cams) == 1                   # not each of them
    for one, other in zip(seen["alone"], seen["together"]):
        assert all(np.abs(a.cam - b.cam).max() < 1e-3 for a, b in zip(one, other))
    assert read_image(tmp_path / "alone" / "0.png").shape == (50 + 3 * 264, 5 * 224, 3)


def test_exports(chexnet, data_dir, tmp_path):
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    import pydicom
    sources = [data_dir / "odd" / "Fake_MONOHR1.dcm", data_dir / "published_cams" / "00000001_000.png"]
    exports = Exports(json=True, npz=True, dicom=True)
    done = run(chexnet, sources, tmp_path, [1, 3], exports=exports)
    assert not done.failures
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{source.stem}{suffix}" for source in sources for suffix in (".png", ".json", ".npz", ".cam.dcm"))
    for source in sources:
        told = json.loads((tmp_path / f"{source.stem}.json").read_text())
        shown = {finding["class"]: finding for finding in told["findings"] if finding["boxes"] is not None}
        assert set(shown) == {"Cardiomegaly", "Infiltration"} and len(told["findings"]) == 14
        assert shown["Cardiomegaly"]["score"] == pytest.approx(float(done.scores[source.name][1]))
        assert told["view"] == {"x": 64, "y": 64, "width": 896, "height": 896} and told["image"]["width"] == 1024
        assert told["files"] == {"picture": f"{source.stem}.png", "manifest": f"{source.stem}.json",
                                 "maps": f"{source.stem}.npz", "dicom": f"{source.stem}.cam.dcm"}
        maps = np.load(tmp_path / f"{source.stem}.npz")
        assert maps["maps"].shape == (2, 7, 7) and maps["classes"].tolist() == ["Cardiomegaly", "Infiltration"]
        capture = pydicom.dcmread(tmp_path / f"{source.stem}.cam.dcm")
        assert (capture.pixel_array == read_image(tmp_path / f"{source.stem}.png")).all()
    patient = str(pydicom.dcmread(sources[0]).PatientID).encode()
    assert len(patient) > 10 and all(patient not in path.read_bytes() for path in tmp_path.iterdir())


def test_older_pictures_are_counted(tmp_path):
    for name in ("a.png", "a.guided.png", "b.png", "sub/c.png", "scores.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    done = Explained(pictures={"a.jpg": tmp_path / "a.png"})
    assert older_files(tmp_path, done) == 2
    assert summary(done, tmp_path) == (f"1 picture and scores.csv are in {tmp_path}.\n"
                                       "2 older pictures lie there too: scores.csv says nothing about them.")
    (tmp_path / "b.png").unlink()
    assert summary(done, tmp_path).endswith("1 older picture lies there too: scores.csv says nothing about it.")
