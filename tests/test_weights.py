"""Checkpoints in and out: every flavour that exists, and nothing that runs code."""
import io
import json
import os
import pickle
import pickletools
import struct
import sys
from collections import OrderedDict

import numpy as np
import paddle
import pytest

from cxr.errors import InputError
from cxr.weights import META_KEY, check_state, load_weights, read_weights, save_weights


def make_model(seed=0):
    """A small model with weights, biases and batch-norm statistics, all of them random."""
    model = paddle.nn.Sequential(paddle.nn.Conv2D(1, 2, 3), paddle.nn.BatchNorm2D(2), paddle.nn.Linear(3, 2))
    rng = np.random.default_rng(seed)
    for value in model.state_dict().values():
        value.set_value(rng.standard_normal(value.shape).astype("float32"))
    return model


def values(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def same(left, right):
    return list(left) == list(right) and all((left[key] == right[key]).all() for key in left)


@pytest.fixture(scope="module")
def state():
    return values(make_model(1))


@pytest.fixture
def refused(tmp_path):
    """Call with the bytes of a file (and a model): the file must be refused, by its name, the model left alone.

    Gives back the sentence.
    """
    def check(content):
        path = tmp_path / "bad.pdparams"
        path.write_bytes(content)
        model = make_model(0)
        before = values(model)
        with pytest.raises(InputError) as error:
            load_weights(model, path)
        assert str(path) in str(error.value)
        assert same(values(model), before)
        return str(error.value)
    return check


def loaded(path):
    model = make_model(0)
    meta = load_weights(model, path)
    return values(model), meta


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


# --- what must run nothing -----------------------------------------------------------------------------------------

class Call:
    """Pickles as a call of `function(*arguments)`, and `state` handed to the result."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state) if state is not None else (function, arguments)

    def __reduce__(self):
        return self.reduced


def short(text):
    return b"\x8c" + bytes([len(text.encode())]) + text.encode()


def stack_global(module, name):
    return short(module) + short(name) + b"\x93"


def call(module, name, *arguments):
    """Opcodes that call `module.name` with texts."""
    return stack_global(module, name) + b"(" + b"".join(map(short, arguments)) + b"tR"


def program(opcodes):
    return b"\x80\x04" + opcodes + b"."


def within(opcodes, key="conv"):
    return program(b"}" + short(key) + opcodes + b"s")


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_runs(tmp_path, state, refused, protocol):
    marker = tmp_path / "marker"
    code = f"open({str(marker)!r}, 'w').close()"
    hostile = [Call(os.system, f"touch '{marker}'"), Call(eval, code), Call(exec, code), Call(open, str(marker), "w"),
               Call(np.save, str(marker), 1), Call(np.load, str(marker)), Call(np.fromfile, str(marker)),
               Call(getattr, "x", "y"), Call(__import__, "antigravity"), Call(pickle.loads, b"N."),
               Call(map, print, [1])]
    for bad in hostile:
        name = bad.reduced[0].__name__
        for content in (bad, {**state, "conv": bad}, {"state_dict": {**state, "x": bad}}, [bad],
                        OrderedDict([*state.items(), ("x", bad)]), {**state, "x": ("name", bad)},
                        {"state_dict": state, "optimizer": bad}, {**state, "x": Call(OrderedDict, [["a", bad]])},
                        {**state, "x": Call(OrderedDict, state={"a": bad})}):
            sentence = refused(pickle.dumps(content, protocol))
            assert "asks for" in sentence and name.rstrip("_") in sentence
            assert not marker.exists()


def test_the_marker_would_be_seen(tmp_path):
    """The same files do run code under plain pickle: the test above can fail."""
    marker = tmp_path / "marker"
    pickle.loads(pickle.dumps({"x": Call(os.system, f"touch '{marker}'")}))
    assert marker.exists()


@pytest.mark.parametrize("module, name", [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("builtins", "eval"), ("builtins", "exec"),
    ("builtins", "getattr"), ("builtins", "__import__"), ("__builtin__", "eval"), ("subprocess", "Popen"),
    ("collections", "OrderedDict.__init__.__globals__"), ("collections", "OrderedDict.__class__"),
    ("collections", "OrderedDict.__reduce__"), ("collections", "abc.sys.modules"), ("collections", "_sys"),
    ("collections", "namedtuple"), ("collections", "defaultdict"), ("collections.abc", "sys"),
    ("numpy", "load"), ("numpy", "fromfile"), ("numpy", "memmap"), ("numpy", "ndarray.tofile"), ("numpy", "core"),
    ("numpy", "dtype.__init__"), ("numpy.core.multiarray", "fromfile"), ("numpy._core.multiarray", "fromfile"),
    ("numpy.core.multiarray", "_reconstruct.__self__"), ("numpy.core.numeric", "load"), ("numpy.core", "multiarray"),
    ("numpy.testing._private.utils", "runstring"), ("numpy.lib.npyio", "DataSource"),
    ("numpy.ctypeslib", "load_library"), ("numpy.f2py.crackfortran", "myeval"), ("_codecs", "decode"),
    ("_codecs", "lookup"), ("_codecs", "register"), ("codecs", "encode"), ("builtins", "bytes"),
    ("builtins", "bytearray"), ("builtins", "tuple.__class__"),
    ("operator", "attrgetter"), ("functools", "partial"), ("copyreg", "_reconstructor"), ("copyreg", "add_extension"),
    ("paddle", "load"), ("torch._utils", "_rebuild_tensor_v2"), ("cxr.weights", "np"), ("__main__", "os"),
    ("", ""), ("numpy", ""), ("numpy\n", "dtype"), (" numpy", "dtype"), ("collections", "OrderedDict ")])
def test_no_other_name_is_looked_up(refused, module, name):
    for content in (program(call(module, name, "x")), within(call(module, name, "x")),
                    within(stack_global(module, name)), program(stack_global(module, name) + b")\x81")):
        sentence = refused(content)
        assert f"{module}.{name}" in sentence and "could run code" in sentence


def test_nothing_is_imported(refused):
    for module in ("antigravity", "idlelib.run", "numpy.distutils.exec_command"):
        refused(program(call(module, "main", "x")))
        assert module not in sys.modules


@pytest.mark.parametrize("opcodes", [
    # np.ndarray and np.frombuffer as makers of object arrays: an element is a pointer that the file chose
    stack_global("builtins", "tuple") + stack_global("numpy", "ndarray")
    + b"K\x01\x85" + short("O") + b"C\x08AAAAAAAA\x87R\x85R",
    stack_global("builtins", "tuple") + stack_global("numpy.core.numeric", "_frombuffer") + b"(C\x08AAAAAAAA"
    + stack_global("numpy", "dtype") + short("O") + b"\x89\x88\x87R(K\x03" + short("|") + b"NNNK\x08K\x08K\x00tb"
    + b"K\x01\x85" + short("C") + b"tR\x85R",
    stack_global("numpy", "ndarray") + b"K\x01\x85" + short("O") + b"C\x08AAAAAAAA\x87R",
    stack_global("numpy.core.multiarray", "scalar") + stack_global("numpy", "dtype") + short("O") + b"\x85R"
    + b"C\x08AAAAAAAA\x86R",
    stack_global("numpy.core.multiarray", "scalar") + short("f4") + b"C\x04AAAA\x86R",
    stack_global("numpy.core.multiarray", "_reconstruct") + b")R",
    stack_global("numpy.core.multiarray", "_reconstruct") + b")RNb",
    stack_global("numpy.core.multiarray", "_reconstruct") + b")R(K\x01K\x05\x85"
    + stack_global("numpy", "dtype") + short("f4") + b"\x85R\x89C\x04AAAAtb",          # 5 numbers in 4 bytes
    stack_global("numpy", "dtype"), stack_global("numpy", "dtype") + short("f4") + b"\x85R",
    stack_global("_codecs", "encode"), call("_codecs", "encode", "abc", "hex"),
    call("_codecs", "encode", "abc", "idna"), call("_codecs", "encode", "abc", "latin1"),
    stack_global("collections", "OrderedDict"), stack_global("builtins", "tuple") + b"K\x05\x85R",
    b"N", b"K\x01", b"]", b")", short("text"), b"G" + struct.pack(">d", 1.5), b"\x8f", b"}", b"C\x03abc"])
def test_odd_uses_of_what_is_admitted(refused, opcodes):
    refused(within(opcodes))
    refused(program(opcodes))
    refused(within(opcodes, "state_dict"))


def test_a_file_cannot_change_what_the_next_one_gets(tmp_path, refused, state):
    """BUILD sets attributes of whatever lies on the stack, classes and functions included."""
    good = tmp_path / "good"
    good.write_bytes(pickle.dumps(OrderedDict(state), 2))
    set_attributes = b"N}" + b"".join(short(name) + short("x") + b"s" for name in (
        "__setstate__", "func", "what", "state", "arguments", "items", "get", "__call__")) + b"\x86b"
    for module, name in [("collections", "OrderedDict"), ("numpy", "dtype"), ("numpy", "ndarray"),
                         ("builtins", "tuple"), ("_codecs", "encode"), ("numpy.core.multiarray", "_reconstruct"),
                         ("numpy.core.numeric", "_frombuffer"), ("numpy.core.multiarray", "scalar")]:
        refused(within(stack_global(module, name) + set_attributes))
        refused(within(stack_global(module, name) + b")R" + set_attributes))
        # functools.partial takes (function, arguments, keywords, attributes) as its state
        refused(within(stack_global(module, name) + b"(" + stack_global("builtins", "tuple") + b")}Ntb"))
        assert same(loaded(good)[0], state)


def test_attributes_cannot_shadow_methods(tmp_path, refused):
    build = b"}" + b"".join(short(name) + short("x") + b"s" for name in ("items", "get", "__class__")) + b"b"
    refused(program(stack_global("collections", "OrderedDict") + b")R" + build))


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
