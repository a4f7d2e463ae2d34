"""The predictor: the same numbers from every engine, and a cache that can be trusted."""
import os
import runpy
import threading
from pathlib import Path

import numpy as np
import paddle
import pytest

from covid_resnet import ResNet
from cxr.cam import METHODS
from cxr.device import choice
from cxr.errors import InputError
from cxr.inference import engines, predictor
from cxr.inference.engines import OpenVINO, PaddleInference, complete, export, fingerprint
from cxr.inference.predictor import EngineModel, Predictor, predict
from cxr.training.frozen_features import Head

openvino = pytest.param("openvino", marks=pytest.mark.skipif(not OpenVINO.installed(), reason="needs openvino"))


@pytest.fixture(scope="module")
def model():
    paddle.seed(3)
    model = ResNet(18, 3)
    # Running statistics as after training, so that features keep an ordinary size.
    model.train()
    for _ in range(3):
        model(paddle.randn([4, 3, 64, 64]))
    model.eval()
    return model


def images(*shape):
    return np.random.default_rng(0).standard_normal(shape, "float32")


@pytest.mark.parametrize("engine", [openvino, "onednn", "compiled"])
@pytest.mark.parametrize("shape", [(4, 3, 64, 64), (1, 3, 96, 64)])
def test_engines_agree(model, tmp_path, engine, shape):
    x = images(*shape)
    scores, features = Predictor(model, engine, tmp_path)(x)
    plain_scores, plain_features = Predictor(model, "dygraph")(x)
    assert scores.shape == (shape[0], 3) and features.shape == (shape[0], 512, shape[2] // 32, shape[3] // 32)
    assert np.abs(scores - plain_scores).max() < 1e-5
    assert np.abs(features - plain_features).max() < 1e-5 * np.abs(plain_features).max()
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("engine", [openvino, "onednn"])
def test_one_predictor_for_any_number_and_size_of_images(model, tmp_path, engine):
    predictor = Predictor(model, engine, tmp_path)
    for shape in ((3, 3, 64, 64), (17, 3, 64, 64), (1, 3, 96, 64), (2, 3, 64, 64)):
        x = images(*shape)
        x[:, 0] += np.arange(len(x))[:, None, None]          # no two images alike: their order counts
        scores, features = predictor(x)
        plain_scores, plain_features = Predictor(model, "dygraph")(x)
        assert np.abs(scores - plain_scores).max() < 1e-5
        assert np.abs(features - plain_features).max() < 1e-5 * np.abs(plain_features).max()


@pytest.mark.parametrize("engine", [openvino, "onednn"])
def test_bfloat16_is_near_and_its_cost_is_said(model, tmp_path, engine):
    x = images(4, 3, 64, 64)
    exact = Predictor(model, engine, tmp_path)(x)
    rough = Predictor(model, engine, tmp_path, precision="bfloat16")
    scores, features = rough(x)
    assert scores.dtype == features.dtype == np.float32 and len(exports(tmp_path)) == 1
    assert 1e-6 < np.abs(scores - exact[0]).max() < 0.1
    sentence = predictor.precision_cost(rough, model, [(image, 0) for image in x])
    assert f"at most {np.abs(scores - exact[0]).max():.4f}" in sentence and "4 images" in sentence


def exports(folder):
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


@pytest.mark.parametrize("engine", [openvino, "onednn"])
def test_export_is_made_once_and_found_again(model, tmp_path, monkeypatch, engine):
    first = Predictor(model, engine, tmp_path).logits(images(1, 3, 64, 64))
    folder, = exports(tmp_path)
    os.utime(folder, (1000, 1000))
    monkeypatch.setattr(engines, "export", lambda *_: pytest.fail("exported again"))
    assert np.array_equal(Predictor(model, engine, tmp_path).logits(images(1, 3, 64, 64)), first)
    assert folder.stat().st_mtime > 1000                                      # used, so not the next to go


def test_the_least_recently_used_exports_go(model, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_KEPT", 2)
    folders = [tmp_path / name for name in ("a", "b")]
    for age, folder in enumerate(folders):
        export(model, folder)
        os.utime(folder, (1000 + age, 1000 + age))
    (tmp_path / "notes.txt").write_text("not ours")
    Predictor(model, "onednn", tmp_path)
    assert not folders[0].exists() and folders[1].exists() and (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("name", ["gradcam", "gradcam++", "ablationcam", "eigencam", "layercam", "cam", "scorecam"])
def test_cams_of_the_engine_are_those_of_the_model(model, tmp_path_factory, name):
    cache = tmp_path_factory.getbasetemp() / "engine"
    options = {"top_k": 8} if name == "scorecam" else {}
    x = images(2, 3, 64, 64)
    plain, fast = METHODS[name](model, "block.7", **options), METHODS[name](
        EngineModel(model, Predictor(model, cache_dir=cache)), EngineModel.LAYER, **options)
    assert np.abs(fast(x, "all") - plain(x, "all")).max() < 1e-4
    assert np.abs(fast.scores.numpy() - plain.scores.numpy()).max() < 1e-4


def test_other_weights_are_another_export(model, tmp_path):
    other = ResNet(18, 3)
    other.set_state_dict(model.state_dict())
    other.eval()
    assert fingerprint(other) == fingerprint(model)
    other.fc.bias.set_value(other.fc.bias + 1)
    assert fingerprint(other) != fingerprint(model)
    ours, others = (Predictor(which, "onednn", tmp_path).logits(images(1, 3, 64, 64)) for which in (model, other))
    assert np.allclose(others, ours + 1, atol=1e-5) and len(exports(tmp_path)) == 2


@pytest.mark.parametrize("harm", [
    lambda path: path.write_bytes(path.read_bytes()[:100]),
    lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
    lambda path: path.unlink(),
])
@pytest.mark.parametrize("name", ["network.pdiparams", "manifest.json"])
def test_a_damaged_export_is_made_anew(model, tmp_path, harm, name):
    expected = Predictor(model, cache_dir=tmp_path).logits(images(1, 3, 64, 64))
    folder, = exports(tmp_path)
    harm(folder / name)
    assert np.array_equal(Predictor(model, cache_dir=tmp_path).logits(images(1, 3, 64, 64)), expected)
    assert exports(tmp_path) == [folder] and complete(folder)
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_second_builder_finds_the_firsts_files(model, tmp_path):
    folder = tmp_path / "export"
    export(model, folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    export(model, folder)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    assert list(tmp_path.iterdir()) == [folder]


def test_a_foreign_file_in_the_way_of_a_cache_that_was_asked_for_is_told(model, tmp_path):
    (tmp_path / "cache").write_text("no folder")
    with pytest.warns(UserWarning, match="the cache .* cannot be written to"):
        predictor = Predictor(model, "onednn", tmp_path / "cache")
    x = images(1, 3, 64, 64)
    assert np.abs(predictor(x)[0] - Predictor(model, "dygraph")(x)[0]).max() < 1e-5
    assert (tmp_path / "cache").read_text() == "no folder"


@pytest.mark.parametrize("there, chosen", [(True, OpenVINO), (False, PaddleInference)])
def test_openvino_is_taken_where_it_is_installed(model, tmp_path, monkeypatch, there, chosen):
    monkeypatch.setattr(OpenVINO, "installed", lambda: there)
    monkeypatch.setattr(chosen, "_load", lambda self, folder, precision: None)
    predictor = Predictor(model, cache_dir=tmp_path)
    assert predictor.engine == ("openvino" if there else "onednn") and type(predictor._run) is chosen
    if not there:
        with pytest.raises(InputError, match="pip install openvino"):
            Predictor(model, "openvino", tmp_path)


def test_an_engine_that_cannot_run_the_network_is_named(model, tmp_path, monkeypatch):
    def fail(self, folder, precision):
        raise RuntimeError("no such layer")
    monkeypatch.setattr(PaddleInference, "_load", fail)
    with pytest.raises(InputError, match=r"PaddleInference cannot run this network \(no such layer\): .*--engine"):
        Predictor(model, "onednn", tmp_path)


def test_engine_names(model):
    with pytest.raises(InputError, match="auto, openvino, onednn, compiled, dygraph, not 'fast'"):
        Predictor(model, "fast")
    with pytest.raises(InputError, match="float32, bfloat16, float16, not 'int4'"):
        Predictor(model, precision="int4")
    for engine, precision in (("onednn", "float16"), ("dygraph", "bfloat16")):
        with pytest.raises(InputError, match=f"{precision} is for GPUs here"):
            Predictor(model, engine, precision=precision)


class Constant:
    """Five images whose values are their index, as one crop or as two."""

    def __init__(self, crops):
        self.crops = crops

    def __len__(self):
        return 5

    def __getitem__(self, index):
        image = np.full((3, 64, 64), index / 10, "float32")
        return (np.stack([image, image + 1]) if self.crops else image), 0


def test_predict_keeps_order_and_crops(model):
    predictor = Predictor(model, "dygraph")
    single = predict(predictor, Constant(False), batch_size=2, workers=2)
    crops = predict(predictor, Constant(True), batch_size=2, workers=0)
    assert single.shape == (5, 1, 3) and crops.shape == (5, 2, 3)
    assert np.allclose(single[:, 0], crops[:, 0], atol=1e-4)
    alone = predictor.logits(np.full((1, 3, 64, 64), 0.3, "float32"))
    assert np.allclose(single[3, 0], alone[0], atol=1e-4)


@pytest.mark.parametrize("engine", [openvino, "onednn"])
def test_one_predictor_in_several_threads(model, tmp_path, engine):
    predictor = Predictor(model, engine, tmp_path)
    inputs = [images(2, 3, 64, 64) * (1 + index) for index in range(4)]
    expected = [predictor.logits(x) for x in inputs]
    results = [None] * 4

    def work(index):
        results[index] = [predictor.logits(inputs[index]) for _ in range(5)]
    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own, right in zip(results, expected):
        assert all(np.allclose(one, right, atol=1e-4) for one in own)


def test_other_work_keeps_its_threads_after_the_engine(model, tmp_path, monkeypatch):
    set_to = []
    monkeypatch.setattr(paddle.base.core, "set_num_threads", set_to.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Predictor(model, "onednn", tmp_path).logits(images(1, 3, 64, 64))
    assert set_to[-1] == 3                                                    # Paddle Inference leaves 1


def test_the_commands_know_the_engines():
    tools = Path(__file__).resolve().parent.parent / "tools"
    told = runpy.run_path(str(tools / "_cli.py"))
    assert told["ENGINES"] == predictor.ENGINES and told["PRECISIONS"] == predictor.PRECISIONS


class Engine:
    """Stands in for the engine of a GPU: what the network really gives, times `factor`."""

    def __init__(self, model, factor):
        self.plain, self.factor, self.calls = Predictor(model, "dygraph"), factor, 0

    def __call__(self, x):
        self.calls += 1
        logits = self.plain.logits(x)
        return self.factor * logits, np.zeros((len(x), 1))


def test_the_first_images_of_a_gpu_are_held_against_the_cpu(model):
    x = images(5, 3, 64, 64)
    engine = Engine(model, 1.0005)                           # as much as TF32 does
    guarded = predictor.ComparedWithCpu(engine, model, "float32")
    for _ in range(2):
        assert guarded(x)[0].shape == (5, 3)
    assert engine.calls == 2
    guarded = predictor.ComparedWithCpu(Engine(model, 0.0), model, "float32")
    for _ in range(2):                                       # a refusal is no permission to go on
        with pytest.raises(InputError, match="gives other scores than the CPU.*go on with --device cpu"):
            guarded(x)


def test_only_weights_that_diverged_give_no_numbers_unpunished(model):
    """Their scores are nobody's fault: the caller names the checkpoint."""
    broken = ResNet(18, 3)
    broken.fc.bias.set_value(np.full(3, np.nan, "float32"))
    broken.eval()
    assert np.isnan(predictor.ComparedWithCpu(Engine(broken, 1.0), broken, "float32")(images(1, 3, 64, 64))[0]).all()
    with pytest.raises(InputError, match="nan"):             # numbers on the CPU, none on the device
        predictor.ComparedWithCpu(Engine(model, np.nan), model, "float32")(images(1, 3, 64, 64))


def test_a_copy_on_the_cpu_leaves_model_and_device_alone(model):
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    x = images(2, 3, 64, 64)
    assert np.abs(predictor.on_the_cpu(model, x) - Predictor(model, "dygraph").logits(x)).max() < 1e-6
    for key, value in model.state_dict().items():
        assert (value.numpy() == before[key]).all()


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Paddle says that it computes on a GPU whose answers were right; the devices that it is told to take."""
    taken = []
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(paddle, "set_device", taken.append)
    monkeypatch.setattr(choice, "_right", {"gpu:0"})
    return taken


def test_a_predictor_on_a_gpu_compares_its_first_images_alone(model, on_a_gpu):
    """Also of a classifier behind a frozen backbone, which is validated by itself."""
    x = images(3, 3, 64, 64)
    for network, given in ((model, x), (Head(model), images(3, 512, 1, 1))):
        on_a_gpu.clear()
        fast = Predictor(network, "dygraph")
        for _ in range(2):
            assert fast.logits(given).shape == (3, 3)
        assert on_a_gpu == ["cpu", "gpu:0"]                  # there and back, once
    with pytest.raises(InputError, match="is for CPUs"):
        Predictor(model, "onednn")


def test_a_precision_that_a_network_does_not_bear_is_not_the_device(model):
    guarded = predictor.ComparedWithCpu(Engine(model, np.nan), model, "float16")
    with pytest.raises(InputError, match="does not bear the precision float16: use float32"):
        guarded(images(1, 3, 64, 64))


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_network_that_does_not_look_at_its_images_is_told_once(at_once, recwarn):
    dead = ResNet(18, 3)
    dead.fc.weight.set_value(np.zeros((512, 3), "float32"))
    predictor = Predictor(dead, "dygraph")
    x = images(3, 3, 64, 64)
    for start in (0, 1, 2)[::at_once]:
        predictor(x[start:start + at_once])
    told = [str(warning.message) for warning in recwarn if "equal to the last bit" in str(warning.message)]
    assert len(told) == 1 and "figures mean nothing" in told[0]


def test_one_image_again_and_again_is_no_dead_network(model, recwarn):
    predictor = Predictor(model, "dygraph")
    for _ in range(3):
        predictor(images(1, 3, 64, 64).repeat(2, axis=0))
    assert not [warning for warning in recwarn if "equal to the last bit" in str(warning.message)]
