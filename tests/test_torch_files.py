"""PyTorch's files without PyTorch: what it wrote itself, what we write, and what must be refused."""
import base64
import io
import os
import pickle
import struct
import tracemalloc
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from cxr.errors import InputError
from cxr.weights.torch_files import is_torch, read_torch, write_torch

# Two files of PyTorch 2.13 with the same content, {"epoch": 1, "state_dict": ...}, see EXPECTED: the zip archive and
# the stream of pickles (`_use_new_zipfile_serialization=False`).
PYTORCH_ZIP = (
    'c-p0w&2Jk;7{<qT;yBxUwuQ6-LLq!O&^qg{U8hOoWE+;k7V2!9%F4ys*qhj5<ITGsr+`!x2_?`g;?hgi12?!Lgpg3gl@o{}kT@W5KwRKoU}o'
    '3e%xpfaB%_QsyWZ#bJTu;TXA4@S3!zvH?Q28mEHa#OwYF(aRt#(;Hr}&TWdJR6Z7X~qP`ubp1m=cau0lu)6$NtEzy>x;m0B4?xLmd^%PixXU'
    '2h1toQmm~l?C#R0FenDy5hw%M6hmGnwFW^teN+qyNqpOohUVN&1wiG$6RUFtV#)+^@i<~Hd6vb<MCpT>tj2{nh8CgL{Kf;z_-1N0>p|Ta*qh'
    'T#Rxf;H<}=5eHhLxY9Xyl3-3T5{bvXIA5>|S0StpW3>EwL@-(UjNejbOVp#2|#;Uzl7jbq`i)ztrIH!fS;k+k*3d7SnjIhJ08rCXY@WiczH^'
    '?PF;6*oJ5=IF%jNzF@4Qb(Rc$QM1^QdDOp4Z_LOI=w_O7H?lRosCmC7=AFOHRSKM}DbAewmVA@yM@Yi0d%H4!2@AS1c1=<Jb%CMW6h-OHRXO'
    'LJncLLdoQ3-+_d8nDpo(hNKRuV&5LUY&Yu|(j5GzU0?Ij85f;_tcR8edSb%E$ry4vOtI6jY8h*Am7fONwtU*OOUuHHHwD*PQ!q=XAn#G<FwE'
    '<qu++L;H{p8w_jVByED!|3@CHR7EwTfu7NKK()5F}r@Rkm57l-yR8-`=7o7i+fJLGBh?-1Z7XD7ouUgCFKiEq)w1<z^`gRaBvPu-I{pTLq1c'
    'bm;bLF<VXKB_k!kO!Ui!l4U$1f~3iomjP<bpw|+O{YOtr>Z0Z>$_7+Qr~a>`{QGpoA$$fN0Gee+gi3I!>X;-*UdUsmGm*K-6mydfc!o9Crm8'
    'DM+O*1c|X9)2iUY}B~q2?llZoqRm0daX@>1<e_f0cm*|lh2GA^5RVPJNxq6BK9(5~EKIX_D>06{fCViLmKS@XPq?VI@iF9$ECVl_@>a0l1Vu'
    'z&X`J_oz8QPbW3}=@zr6*55Cm__-fjP%BQ>rp^n(1HO&Cj|1;j!^^C-6_7)}KHhKYaLYo@Q8C`u7WJ8taf@hR={umE4Il^t7ndf8*D`?GyNC'
    'PvakQoxdOdp~$a4bfB}sJ4>oEd#c%AUOvY2D<Am$w$=?D#n%t;cb(^N5Ka4Bzii4U9Y$K9&Obd`Tk2fD#@NE`4yj=}HBv!8H0Y~Usa83D{T6'
    'd6DJNxQIh~cnOjed<Q52<IE-i^uDJhd8AK5AL4NaN6{^M71k|XY>4AHQDPIl`V+Lt`|9vM`#8^{Q!{5^sW+pK~Rb`u!oAd6k-h@B_MVGH>%$'
    'N8Dz_!~%2&Q{j}PJXu=1!{j#%T`fdOVjYxIH+YSAg{d>)TV-3wsP^>UxM0nP|H>wUQ6H4`AQemvUP*k{ub0`+uDOG3)}QqKr01(*_F;~cY|6'
    'vsAbpcAg8_1i-MIQC}x+?7$^RW5g)v`3tBXKxm^k(SN09QeQZR$V@_yq4N-TO__E(S_ukUFqn>8Kz2Cd{e};c57X')
PYTORCH_LEGACY = (
    'c-nQ8SyR(c6vvZv!%z@+amBs3)U>6W3k5_(!x~)j;&eiKA#p-)PjZ8!GtBS;qThfSA9(aD_{K-^)sNte51uTPmWi33o8&J4-#!1Hn@!=HX#M'
    '>@^=IhAkA=bPrZD?EhV2G$8Fhf;xRy;B)u~lqC$?kKCh#~x?ZXkvWXvLU(rlPo6NDXA#7_39Me2_EnK%&JfOtktV5ehHn?XVr)EK^*O$JFhu'
    'EsqL+FXT{9CzIVrZ=CosBQo+^S-3RG)C$TQ)eLPxD$)$3^(G4^LB&Sq%nyjBE*Ij57&ze)@Z}ENOs*MA0eSLYU@U}?lRMI#JWwEUDImR8EHD'
    'yuCM1sNM<r>%I8p9TP2VRmWWdp)!0(dDMF9hk8`Rc<y<w7AyvwS5*+gr(pxTwa(a$I@1o4haaq`gwD+(LeP0c4WBm+{D=^^O7Vge5G~7F!Fc'
    '5E~j7a&DMj(4?QBKOqEjTUnTW}_jJj>vm0_QsuHZ*Gm1_Qw`hiU9;r*Pqrk*gF-QlV6l;36^vWL#R5Ia%0(%O2xOz_`j_NP%mejOCSF39ffB'
    'CVZoEr8ehA7pGV%N|g%S3^}(#&TWr#C*WilV0*XIo(6T7EduwtNRxhNn{&V0vqG_)%fkcY@W{z}94w)2co^KIfR$sASD>J#4_P{Ou_Q;jP%~'
    'JVZBVg0p|VuXSD+Mv$_N@B4#X=AstP>nG;GDvR^f5CVU${J?I%aHbJB<ePeZdtL$hk0Sz`fXoWX<w&pH`R+9WU;T}g#%wN!!UD9EAUlqbl^v'
    '2A!E$2?c21JRcZUMV2^Cq5KyX|}dT7_njIKWC^tLxkCA_=uD*=V30)W<Jbj!OLbb04ofZ6nMSkzr6VZZxwjwe+=GxAA^WG;-mfxA<D#9RJq5'
    'a&RHU=kdje8rlRueAz6V7uKn8BJ|8}(!u!D(-+tmox&1WPd2QCP8N(mOCdMAdKE^K$Zk*!=ForOsasF`8-tO+t8h3<ppz{yHF?pZ')

EXPECTED = {
    "view": np.arange(1, 9, dtype="float32").reshape(2, 4).T,         # of numbers 1-8 of a storage of 12, transposed
    "shared": np.arange(6, 12, dtype="float32"),                      # of the same storage
    "half": np.float32([1.5, -2]), "bf16": np.float32([1.5, -3]), "double": np.float32([[0.1]]),
    "count": np.int64(7), "flag": np.array([True, False]), "none": np.zeros((0, 3), "float32"),
    "parameter": np.float32([2, 3]),
}


def unpacked(text):
    return zlib.decompress(base64.b85decode(text))


def check(state, expected):
    assert list(state) == list(expected)
    for key, value in expected.items():
        assert state[key].dtype == value.dtype and state[key].shape == value.shape, key
        assert state[key].tobytes() == value.tobytes() and state[key].flags.writeable, key


@pytest.mark.parametrize("text", [PYTORCH_ZIP, PYTORCH_LEGACY], ids=["zip", "legacy"])
def test_reads_what_pytorch_wrote(tmp_path, text):
    (tmp_path / "a.pth").write_bytes(unpacked(text))
    state, meta = read_torch(tmp_path / "a.pth")
    check(state, EXPECTED)
    assert meta == {} and is_torch(tmp_path / "a.pth")


def tensor(count=4, offset=0, shape=(4,), strides=(1,), key="0", kind="FloatStorage"):
    """Opcodes of a tensor, as PyTorch's pickles describe it."""
    def number(value):
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"
    storage = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(count) + b"tQ"
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(strides)
            + b"\x89}tR")


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def state_dict(*tensors):
    return b"\x80\x02}" + b"".join(text(f"w{index}") + one + b"s" for index, one in enumerate(tensors)) + b"."


def archive(pickled, storages=None, compression=zipfile.ZIP_STORED, order=b"little", **more):
    """A zip file as PyTorch lays it out, written entry by entry."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as out:
        out.writestr("m/data.pkl", pickled)
        out.writestr("m/byteorder", order)
        for key, data in ({"0": np.arange(4, dtype="f4").tobytes()} if storages is None else storages).items():
            out.writestr(f"m/data/{key}", data)
        for name, data in more.items():
            out.writestr(name, data)
    return file.getvalue()


@pytest.fixture
def refused(tmp_path):
    """The sentence with which a file of these bytes is refused."""
    def call(content):
        path = tmp_path / "bad.pth"
        path.write_bytes(content)
        with pytest.raises(InputError) as error:
            read_torch(path)
        sentence = str(error.value)
        assert sentence.startswith(str(path)) and sentence.endswith(".") and "\n" not in sentence
        return sentence
    return call


def test_a_file_written_by_hand(tmp_path):
    parts = state_dict(tensor(), tensor(offset=1, shape=(3,)), tensor(shape=(2, 2), strides=(1, 2)),
                       tensor(shape=(), strides=(), offset=3), tensor(shape=(2,), strides=(3,)))
    path = tmp_path / "a"
    for order in ("little", "big"):
        data = np.arange(4, dtype="<f4" if order == "little" else ">f4").tobytes()
        path.write_bytes(archive(parts, {"0": data}, order=order.encode()))
        values = list(read_torch(path)[0].values())
        assert [value.tolist() for value in values] == [[0, 1, 2, 3], [1, 2, 3], [[0, 2], [1, 3]], 3, [0, 3]]


def test_every_kind_of_number(tmp_path):
    kinds = {"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4",
             "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?"}
    for name, dtype in kinds.items():
        data = np.array([0, 1, 1, 0], dtype)
        (tmp_path / "a").write_bytes(archive(state_dict(tensor(kind=name)), {"0": data.tobytes()}))
        value = read_torch(tmp_path / "a")[0]["w0"]
        assert value.tolist() == data.tolist()
        assert value.dtype == ("float32" if data.dtype.kind == "f" else data.dtype)


def test_old_names_of_python_2_and_numpy_numbers_beside_the_weights(tmp_path):
    pairs = b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'module.w'\na" + tensor() + b"aatR"
    best = pickle.dumps(np.float64(0.5), 2)[2:-1]
    content = b"\x80\x02}" + text("best") + best + b"s" + text("state_dict") + pairs + b"s."
    (tmp_path / "a").write_bytes(archive(content))
    check(read_torch(tmp_path / "a")[0], {"w": np.arange(4, dtype="float32")})


def test_a_view_in_the_old_format(tmp_path):
    """PyTorch before 0.4 named the part of a storage that a tensor's own storage was."""
    storage = b"(" + text("storage") + b"ctorch.cuda\nFloatStorage\n" + text("7") + text("cuda:0") + b"K\x04("
    view = text("8") + b"K\x01K\x02ttQ"
    opcodes = b"ctorch._utils\n_rebuild_tensor\n(" + storage + view + b"K\x01(K\x01t(K\x01ttR"
    content = b"".join([pickle.dumps(0x1950a86a20f9469cfc6c, 2), pickle.dumps(1001, 2),
                        pickle.dumps({"little_endian": True}, 2), state_dict(opcodes), pickle.dumps(["7"], 2),
                        struct.pack("<q4f", 4, 10, 11, 12, 13)])
    (tmp_path / "a").write_bytes(content)
    assert read_torch(tmp_path / "a")[0]["w0"].tolist() == [12]


# --- what we write -------------------------------------------------------------------------------------------------

def test_round_trip(tmp_path):
    state = {"a.weight": np.arange(6, dtype="float32").reshape(2, 3), "ä": np.float32(2), "count": np.int64(3),
             "none": np.zeros((0, 2), "float32")}
    for name in ("a.pth", "b.pth"):
        write_torch(tmp_path / name, state, {"class_names": ["ä"]})
    read, meta = read_torch(tmp_path / "a.pth")
    check(read, {key: np.asarray(value) for key, value in state.items()})
    assert meta == {"class_names": ["ä"]}
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_the_file_is_laid_out_as_pytorch_does(tmp_path):
    """Stored, storages at multiples of 64 bytes, the pickle asking for what `weights_only=True` admits."""
    write_torch(tmp_path / "a.pth", {"w": np.float32([1, 2]), "n": np.int64(5)})
    content = (tmp_path / "a.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pth") as file:
        assert file.testzip() is None
        names = file.namelist()
        assert names == ["archive/data.pkl", "archive/byteorder", "archive/data/0", "archive/data/1", "archive/version"]
        for entry in file.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
        for number, data in enumerate((np.float32([1, 2]).tobytes(), np.int64(5).tobytes())):
            place = content.index(data, file.getinfo(f"archive/data/{number}").header_offset)
            assert place % 64 == 0 and file.read(f"archive/data/{number}") == data

        class Asked(pickle.Unpickler):
            names = set()

            def find_class(self, module, name):
                self.names.add(f"{module}.{name}")
                return dict if name == "OrderedDict" else lambda *arguments: arguments

            def persistent_load(self, pid):
                return pid[2:]
        got = Asked(io.BytesIO(file.read("archive/data.pkl"))).load()
    assert got["w"] == (("0", "cpu", 2), 0, (2,), (1,), False, {}) and got["n"][0][2] == 1
    assert Asked.names == {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch.FloatStorage",
                           "torch.LongStorage"}


# --- what must be refused ------------------------------------------------------------------------------------------

class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def test_nothing_runs(tmp_path, refused):
    marker = tmp_path / "marker"
    for content in ({"w": Hostile(marker)}, {"state_dict": {}, "extra": Hostile(marker)}, Hostile(marker)):
        for protocol in range(5):
            evil = pickle.dumps(content, protocol)
            assert "system, which no file of weights needs" in refused(archive(evil))
            assert "system" in refused(streamed(evil))
            assert "system" in refused(pickle.dumps(0x1950a86a20f9469cfc6c, 2) + evil)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["torch._utils\n_rebuild_parameter_with_state", "torch.storage\n_load_from_bytes",
                                  "torch\nload", "builtins\neval", "collections\ndefaultdict", "torch\nTensor",
                                  "torch.nn.modules.conv\nConv2d"])
def test_no_other_name_is_given(refused, name):
    assert name.replace("\n", ".") in refused(archive(b"\x80\x02}" + text("w") + b"c" + name.encode() + b"\n)Rs."))


@pytest.mark.parametrize("opcodes", [
    b"ctorch\nFloatStorage\n}" + text("name") + text("x") + b"sb",
    b"ccollections\nOrderedDict\n}" + text("call") + b"Nsb",
    b"ctorch._utils\n_rebuild_tensor_v2\n)R", b"ctorch._utils\n_rebuild_parameter\n)R", b"ctorch\nFloatStorage\n)R",
    b"N", b"K\x01", b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR", text("x") + b"Q",
    b"(" + text("storage") + b"NNNNtQ",
    b"(" + text("module") + b"NNNK\x01tQ", tensor() + b"}" + text("name") + b"Nsb" + b"0N"])
def test_odd_pickles(refused, opcodes):
    refused(archive(b"\x80\x02}" + text("w") + opcodes + b"s."))
    refused(archive(b"\x80\x02" + opcodes + b"."))


BIG = 1 << 60


@pytest.mark.parametrize("one, said", [
    (tensor(count=5, shape=(5,)), "storage of 4 numbers where 5"),
    (tensor(count=BIG, shape=(BIG,)), "storage of 4 numbers"),
    (tensor(shape=(5,)), "shape [5]"), (tensor(offset=1), "offset 1"),
    (tensor(shape=(2,), strides=(4,)), "strides [4]"),
    (tensor(shape=(2, 2), strides=(1, 1)), None), (tensor(shape=(1000, 1000), strides=(0, 0)), "in 4 numbers"),
    (tensor(shape=(BIG, BIG), strides=(0, 0)), "in 4 numbers"), (tensor(shape=(4,), strides=(-1,)), "-1 where a size"),
    (tensor(offset=-1), "-1 where a size"), (tensor(shape=(-4,)), "-4 where a size"),
    (tensor(count=-4), "-4 where a size"),
    (tensor(shape=(1,) * 9, strides=(1,) * 9), "9 dimensions"), (tensor(shape=(2, 2)), "2 dimensions with 1 strides"),
    (tensor(shape=(0, BIG), strides=(1, 1)), None), (tensor(key="1"), "storage '1' is missing"),
    (tensor(key="../../etc/passwd"), "is missing"), (tensor(kind="QInt8Storage"), "torch.QInt8Storage"),
    (tensor(kind="DoubleStorage"), "storage of 2 numbers where 4")])
def test_tensors_that_the_file_does_not_hold(refused, tmp_path, one, said):
    content = archive(state_dict(one))
    if said is None:                                # odd, but all inside, and small
        (tmp_path / "a").write_bytes(content)
        assert read_torch(tmp_path / "a")[0]["w0"].size <= 4
    else:
        assert said in refused(content)


def test_one_storage_for_thousands_of_tensors(refused):
    data = np.zeros(1 << 16, "f4").tobytes()
    content = archive(state_dict(*[tensor(count=1 << 16, shape=(1 << 16,))] * 200), {"0": data})
    assert "would not fit into memory" in refused(content)


def test_archives_that_unpack_to_more_than_they_are(refused):
    bomb = archive(state_dict(tensor(count=1 << 22, shape=(1 << 22,))), {"0": bytes(1 << 24)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 17 and "compressed, which PyTorch never does" in refused(bomb)
    assert "more than 4194304 bytes" in refused(archive(bytes(5 << 20)))
    content = bytearray(archive(state_dict(tensor())))
    place = content.rindex(b"m/data/0") - 46                        # its entry in the directory at the end
    content[place + 20:place + 28] = struct.pack("<II", 1 << 31, 1 << 31)
    assert "claim 2147483" in refused(bytes(content))


def streamed(pickled):
    """The old format up to the pickle of the weights."""
    return b"".join(pickle.dumps(value, 2) for value in (0x1950a86a20f9469cfc6c, 1001, {})) + pickled


@pytest.mark.parametrize("pickled", [
    b"\x80\x02}r\x00\x00\x00\x02.",                                 # a memo of 32 million places
    b"\x80\x02\x8e" + struct.pack("<Q", 1 << 40) + b"x.",           # a text of a terabyte
    b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"}.",           # a frame of a terabyte
    b"\x80\x02" + b"(" * 100000 + b"t" * 100000 + b"."], ids=["memo", "text", "frame", "nested"])
def test_memory_that_a_pickle_asks_for(refused, pickled):
    for content in (archive(pickled), streamed(pickled)):
        tracemalloc.start()
        refused(content)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 << 20


def test_a_list_that_is_made_a_dictionary_over_and_over(refused):
    pairs = b"(lp0\n" + b"".join(b"(I%d\nK\x01la" % number for number in range(20000)) + b"0"
    pickled = b"\x80\x02" + pairs + b"(lccollections\nOrderedDict\np1\n0" + b"g1\n(g0\ntRa" * 2000 + b"."
    for content in (archive(pickled), streamed(pickled)):
        assert "copied over and over" in refused(content)


def test_an_old_file_with_an_endless_pickle(refused):
    assert "a pickle of more than 4194304 bytes" in refused(streamed(b"\x80\x02" + b"K\x010" * (2 << 20)))


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "m/../../evil", "..\\evil", "m/data/0"])
def test_names_that_lead_elsewhere_or_come_twice(refused, name):
    with warnings.catch_warnings():                 # of zipfile, while it writes
        warnings.simplefilter("ignore")
        content = archive(state_dict(tensor()), **{name: b"x"})
    sentence = refused(content)
    assert "points out of the archive" in sentence or "two entries" in sentence


def test_damage(refused):
    for content in map(unpacked, (PYTORCH_ZIP, PYTORCH_LEGACY)):
        for cut in {*range(0, 60), *range(60, len(content) - 1, 31), len(content) - 1}:
            refused(content[:cut])
    content = bytearray(archive(state_dict(tensor())))
    content[content.index(np.arange(4, dtype="f4").tobytes()) + 5] ^= 1
    assert "CRC" in refused(bytes(content))


def test_changed_bytes(tmp_path):
    """A changed byte may give other numbers or keys; it never gives anything but weights or a refusal."""
    rng, path = np.random.default_rng(0), tmp_path / "a"
    for good in map(unpacked, (PYTORCH_ZIP, PYTORCH_LEGACY)):
        for at in rng.integers(0, len(good), 300):
            content = bytearray(good)
            content[at] = rng.integers(256)
            path.write_bytes(content)
            try:
                assert all(isinstance(value, np.ndarray) for value in read_torch(path)[0].values())
            except InputError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize("content, said", [
    (archive(pickle.dumps([1], 2)), "no dictionary of weights"), (archive(pickle.dumps({}, 2)), "no weights"),
    (archive(pickle.dumps({"epoch": 1}, 2)), "no tensor under 'epoch'"),
    (archive(b"\x80\x02}K\x01" + tensor() + b"s."), "int"),
    (archive(state_dict(tensor()), **{"m/code/a.py": b""}), "TorchScript"),
    (archive(b"", **{"n/data.pkl": b""}), "without one"),
    (b"PK\x03\x04" + bytes(50), "damaged"), (b"", "damaged"), (pickle.dumps({"w": 1}), "damaged")],
    ids=lambda value: value if isinstance(value, str) else "")
def test_says_what_it_is(refused, content, said):
    assert said in refused(content)


def test_missing(tmp_path):
    assert not is_torch(tmp_path / "none.pth")
    with pytest.raises(InputError, match="none.pth does not exist"):
        read_torch(tmp_path / "none.pth")
    with pytest.raises(InputError, match="is a folder"):
        read_torch(tmp_path)
