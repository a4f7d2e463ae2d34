"""Checkpoints that ask for code to be run: nothing of it runs."""
import os
import pickle
import struct
import sys
from collections import OrderedDict

import numpy as np
import pytest
import weight_files
from weight_files import loaded, same

state = pytest.fixture(scope="module")(weight_files.state)
refused = pytest.fixture(weight_files.refuser)


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
    ("paddle", "load"), ("torch._utils", "_rebuild_tensor_v2"), ("cxr.weights.paddle_files", "np"), ("__main__", "os"),
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
