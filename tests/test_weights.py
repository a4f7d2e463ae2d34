"""Checkpoints in and out: every flavour that exists, and a sentence for everything else."""
import io
import json
import os
import pickle
import pickletools
import struct
from collections import OrderedDict

import numpy as np
import paddle
import pytest
import weight_files
from weight_files import loaded, make_model, same, values

from cxr.errors import InputError
from cxr.weights import load_weights, save_weights
from cxr.weights.paddle_files import META_KEY, check_state, read_weights

state = pytest.fixture(scope="module")(weight_files.state)
refused = pytest.fixture(weight_files.refuser)


# --- what must be read ---------------------------------------------------------------------------------------------

def test_round_trip_with_metadata(tmp_path, state):
    path = tmp_path / "über uns" / "best 1.pdparams"          # folders are made, names may be anything
    meta = {"recipe": "x", "class_names": ["Ärger", "b"], "preprocess": {"resize": 256, "mean": [0.5]}}
    save_weights(make_model(1), path, meta)
    got, told = loaded(path)
    assert same(got, state)
    assert told == meta
    assert os.listdir(path.parent) == [path.name]


def test_round_trip_without_metadata(tmp_path, state):
    save_weights(make_model(1), tmp_path / "a.pdparams")
    assert loaded(tmp_path / "a.pdparams")[1] == {}
    save_weights(state, tmp_path / "b.pdparams")                # a plain dictionary of arrays
    assert same(loaded(tmp_path / "b.pdparams")[0], state)


def test_paddle_reads_what_save_weights_writes(tmp_path, state):
    path = str(tmp_path / "a.pdparams")
    save_weights(make_model(1), path, {"arch": {"layers": 18}})
    model = make_model(0)
    content = paddle.load(path)
    model.set_state_dict(content)
    assert same(values(model), state)
    assert json.loads(content[META_KEY]) == {"arch": {"layers": 18}}


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "model_state_dict", "params"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_what_paddle_saves(tmp_path, state, protocol, wrap):
    path = str(tmp_path / "a.pdparams")
    content = make_model(1).state_dict()
    paddle.save({wrap: content, "epoch": 3, "note": "x"} if wrap else content, path, protocol=protocol)
    assert same(loaded(path)[0], state)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("protocol", range(6))
def test_reads_pickled_arrays_of_every_protocol(tmp_path, state, protocol, ordered):
    (tmp_path / "a").write_bytes(pickle.dumps(OrderedDict(state) if ordered else state, protocol))
    assert same(loaded(tmp_path / "a")[0], state)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("written, found", [("numpy._core", "numpy.core"), ("numpy.core", "numpy._core")])
def test_reads_files_of_either_numpy(tmp_path, state, written, found, protocol):
    content = renamed(pickle.dumps(state, protocol), written, found)
    assert found.encode() in content and written.encode() not in content
    (tmp_path / "a").write_bytes(content)
    assert same(loaded(tmp_path / "a")[0], state)


def renamed(content, old, new):
    """`content` with the module `old` called `new`; both as old-style GLOBAL and as counted strings."""
    for tail in (".multiarray", ".numeric"):
        before, after = (old + tail).encode(), (new + tail).encode()
        content = content.replace(b"c" + before + b"\n", b"c" + after + b"\n")
        content = content.replace(b"\x8c" + bytes([len(before)]) + before, b"\x8c" + bytes([len(after)]) + after)
    if content[1] >= 4:                                     # the frame's length has changed with it
        start = 11
        content = content[:3] + struct.pack("<Q", len(content) - start) + content[start:]
    return content


def test_strips_the_prefix_of_multi_gpu_training(tmp_path, state):
    (tmp_path / "a").write_bytes(pickle.dumps({"module." + key: value for key, value in state.items()}))
    assert same(loaded(tmp_path / "a")[0], state)
    mixed = {("module." if index else "") + key: value for index, (key, value) in enumerate(state.items())}
    (tmp_path / "b").write_bytes(pickle.dumps(mixed))
    with pytest.raises(InputError, match="keys are missing"):
        loaded(tmp_path / "b")


@pytest.mark.parametrize("convert", [
    lambda a: a.astype("float64"), lambda a: a.astype(">f4"), lambda a: a.astype(">f8"), np.asfortranarray,
    lambda a: a[...], lambda a: np.ascontiguousarray(a)[::-1][::-1]])
def test_other_layouts_of_the_same_numbers(tmp_path, state, convert):
    for protocol in (2, 4, 5):
        (tmp_path / "a").write_bytes(pickle.dumps({key: convert(value) for key, value in state.items()}, protocol))
        got = loaded(tmp_path / "a")[0]
        assert same(got, state)
        assert {value.dtype for value in got.values()} == {np.dtype("float32")}


def test_float16_becomes_float32(tmp_path, state):
    half = {key: value.astype("float16") for key, value in state.items()}
    (tmp_path / "a").write_bytes(pickle.dumps(half))
    assert same(loaded(tmp_path / "a")[0], half)


def test_read_weights_gives_arrays_in_file_order(tmp_path):
    content = {"b": np.float32(2.5), "a": np.arange(6, dtype="<i8").reshape(2, 3), "none": np.zeros((0, 3), "f4"),
               "flag": np.array(True)}
    for protocol in range(6):
        (tmp_path / "a").write_bytes(pickle.dumps(content, protocol))
        got, meta = read_weights(tmp_path / "a")
        assert list(got) == ["b", "a", "none", "flag"] and meta == {}
        assert {key: (value.dtype, value.shape) for key, value in got.items()} == {
            key: (value.dtype, value.shape) for key, value in content.items()}
        assert got["b"] == 2.5 and got["a"].tolist() == [[0, 1, 2], [3, 4, 5]] and bool(got["flag"])
        got["a"][0, 0] = 7                                      # the caller's own, not a view of the file


def test_attributes_of_an_ordered_dict_are_dropped(tmp_path, state):
    content = OrderedDict(state)
    content._metadata = OrderedDict(version=1)                  # as torch's state dicts carry
    (tmp_path / "a").write_bytes(pickle.dumps({"state_dict": content}))
    assert same(loaded(tmp_path / "a")[0], state)


def test_published_key_list(reference_dir, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(reference_dir))
    from seeded_weights import seeded_state

    keys = json.loads((reference_dir / "chexnet_keys.json").read_text())
    keys = keys if isinstance(keys, dict) else dict(keys)
    weights = {key: np.asarray(value) for key, value in seeded_state(keys, 1).items()}
    save_weights(weights, tmp_path / "a.pdparams")
    got, _ = read_weights(tmp_path / "a.pdparams")
    assert len(got) == 606 and same(got, weights)
    check_state(got, {key: tuple(shape) for key, shape in keys.items()}, "a")


# --- what is damaged or something else -----------------------------------------------------------------------------

def test_truncated(state, refused, tmp_path):
    save_weights(make_model(1), tmp_path / "a", {"x": 1})
    for content in ((tmp_path / "a").read_bytes(), pickle.dumps(state, 2), pickle.dumps(state, 5)):
        for cut in {*range(0, 40), *range(40, len(content), 7), *range(len(content) - 10, len(content))}:
            refused(content[:cut])


def test_random_bytes(refused):
    rng = np.random.default_rng(0)
    for length in (1, 2, 3, 10, 100, 1000):
        for _ in range(10):
            refused(rng.bytes(length))
            refused(b"\x80\x04" + rng.bytes(length))


def test_changed_bytes(tmp_path, state):
    """A changed byte may give other numbers; it never gives anything but weights or a refusal."""
    path, rng = tmp_path / "a", np.random.default_rng(0)
    for protocol in (2, 4, 5):
        good = pickle.dumps(state, protocol)
        # The memo's numbers stay: a huge one makes pickle ask for as much memory before we are asked.
        structure = [at for op, _, at in pickletools.genops(good) if op.name not in ("BINPUT", "LONG_BINPUT")]
        for at in rng.choice(structure, 100):
            content = bytearray(good)
            content[at] = rng.choice([value for value in range(256) if value != ord("r")])
            path.write_bytes(content)
            model = make_model(0)
            before = values(model)
            try:
                load_weights(model, path)
            except InputError as error:
                assert str(path) in str(error)
                assert same(values(model), before)


@pytest.mark.parametrize("content, said", [
    (b"", "empty"),
    (b"PK\x03\x04" + bytes(100), "zip archive, as PyTorch writes its checkpoints: convert it with tools/convert.py"),
    (pickle.dumps(0x1950a86a20f9469cfc6c, 2) + pickle.dumps(1001, 2), "old PyTorch checkpoint: convert it with"),
    (b"<!DOCTYPE html><html></html>", "web page"),
    (b"\n\n  <html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n", "git lfs pull"),
    (b"\x1f\x8b\x08" + bytes(20), "gzip"),
    (b"\x93NUMPY\x01\x00", "NumPy array"),
    (b"hello, I am text\n", "damaged, cut short or no Paddle checkpoint"),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged, cut short or no Paddle checkpoint"),
    (pickle.dumps(3), "no dictionary"), (pickle.dumps([]), "no dictionary"), (pickle.dumps(None), "no dictionary"),
    (pickle.dumps(np.zeros(3)), "no dictionary"),
    (pickle.dumps({}), "no weights"), (pickle.dumps({"state_dict": {}}), "no weights"),
    (pickle.dumps({"a": 1}), "'a', not an array of numbers"),
    (pickle.dumps({"a": "x"}), "'a', not an array of numbers"),
    (pickle.dumps({"a": {"b": {"c": 1}}}), "'a', not an array of numbers"),
    (pickle.dumps({"a": [1, 2]}), "'a', not an array of numbers"),
    (pickle.dumps({"a": np.array(["x"])}), "array of numbers under 'a'"),
    (pickle.dumps({"a": np.array([None])}), "array of numbers under 'a'"),
    (pickle.dumps({"a": np.zeros(2, "c8")}), "array of numbers under 'a'"),
    (pickle.dumps({"a": np.zeros(2, "f4,i4")}), "array of numbers under 'a'"),
    (pickle.dumps({1: np.zeros(2, "f4")}), "by a int"),
    (pickle.dumps({"UnpackBigParamInfor@@": {}}), "pieces of 1 GiB"),
    (pickle.dumps({META_KEY: "{", "a": np.zeros(2)}), "unreadable metadata"),
    (pickle.dumps({META_KEY: "[]", "a": np.zeros(2)}), "unreadable metadata"),
    (pickle.dumps({META_KEY: 5, "a": np.zeros(2)}), "unreadable metadata"),
    (pickle.dumps({META_KEY: "[" * 100000, "a": np.zeros(2)}), "unreadable metadata"),
], ids=lambda value: value if isinstance(value, str) else "")
def test_says_what_else_it_is(refused, content, said):
    assert said in refused(content)


def test_missing_and_folder(tmp_path):
    with pytest.raises(InputError, match="missing.pdparams does not exist"):
        load_weights(make_model(), tmp_path / "missing.pdparams")
    with pytest.raises(InputError, match="is a folder"):
        load_weights(make_model(), tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_no_permission(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(InputError, match="permissions"):
        load_weights(make_model(), path)


# --- what does not fit ---------------------------------------------------------------------------------------------

def test_other_architecture_lists_the_first_keys(state, refused):
    renamed = {f"new.{index}": value for index, value in enumerate(state.values())}
    sentence = refused(pickle.dumps(renamed))
    first = list(state)[:3]
    assert f"of {len(state)} weights {len(state)} keys are missing ({', '.join(first)}, ...)" in sentence
    assert f"{len(state)} are unexpected (new.0, new.1, new.2, ...)" in sentence
    last = list(state)[-1]
    sentence = refused(pickle.dumps({key: value for key, value in state.items() if key != last}))
    assert f"1 keys are missing ({last})" in sentence and "unexpected" not in sentence
    sentence = refused(pickle.dumps({**state, "extra": np.zeros(1, "f4")}))
    assert "1 are unexpected (extra)" in sentence and "missing" not in sentence


@pytest.mark.parametrize("change, said", [
    (lambda a: a[..., None], "has shape"), (lambda a: a.ravel()[:1], "has shape"),
    (lambda a: a.reshape(-1, 1), "has shape"),
    (lambda a: np.full_like(a, np.nan), "NaN or infinite"), (lambda a: np.full_like(a, -np.inf), "NaN or infinite"),
    (lambda a: np.full(a.shape, 1e300), "NaN or infinite"),               # finite until it becomes float32
    (lambda a: a.astype("int64"), "whole numbers"), (lambda a: a.astype("uint16"), "bfloat16")])
def test_wrong_values_are_refused_before_the_first_is_set(state, refused, change, said):
    for key in (list(state)[0], list(state)[-1]):
        sentence = refused(pickle.dumps({**state, key: change(state[key])}))
        assert said in sentence and f"'{key}'" in sentence


# --- writing -------------------------------------------------------------------------------------------------------

def test_a_failure_while_writing_leaves_the_old_file(tmp_path, state, monkeypatch):
    path = tmp_path / "a.pdparams"
    save_weights(make_model(1), path)

    def half(content, file, protocol):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(pickle, "dump", half)
    with pytest.raises(OSError, match="No space left"):
        save_weights(make_model(2), path)
    monkeypatch.undo()
    with pytest.raises(TypeError):
        save_weights(make_model(2), path, {"not JSON": object()})
    assert os.listdir(tmp_path) == ["a.pdparams"]
    assert same(loaded(path)[0], state)


def test_the_file_holds_arrays_and_text_alone(tmp_path):
    """So that old readers, and careful ones, take it."""
    save_weights(make_model(1), tmp_path / "a", {"x": 1})
    strings, asked = [], set()
    for opcode, argument, _ in pickletools.genops((tmp_path / "a").read_bytes()):
        if "UNICODE" in opcode.name:
            strings.append(argument)
        if opcode.name == "STACK_GLOBAL":
            asked.add(strings[-1])
    assert asked <= {"_reconstruct", "ndarray", "dtype"}
    assert isinstance(pickle.load(io.BytesIO((tmp_path / "a").read_bytes()))["0.weight"], np.ndarray)
