"""Downloads from a server of our own that behaves as badly as real ones do."""
import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from chexnet.downloads import DOWNLOADS
from cxr.errors import InputError
from cxr.weights import download
from cxr.weights.download import Download, blob_id, fetch, fetch_published

ROOT = Path(__file__).resolve().parent.parent
CONTENT = np.random.default_rng(0).bytes(3_000_000)
BLOB = hashlib.sha1(b"blob 3000000\0" + CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """GET /BEHAVIOUR/...; `server.asked` lists (path, Range) of every request."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        behaviour = self.path.split("/")[1]
        begun = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.server.asked.append((self.path, self.headers.get("Range")))
        count = sum(path == self.path for path, _ in self.server.asked)
        getattr(self, f"do_{behaviour}")(begun, count)
        self.close_connection = True

    def answer(self, data, begun=0, status=None, upto=None, length=True, **headers):
        part = data[begun:]
        self.send_response(status or (206 if begun else 200))
        if begun:
            self.send_header("Content-Range", f"bytes {begun}-{len(data) - 1}/{len(data)}")
        if length:
            self.send_header("Content-Length", str(len(part)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(part[:upto])

    def do_good(self, begun, count):
        if begun >= len(CONTENT):
            return self.answer(b"", status=416)
        self.answer(CONTENT, begun)

    def do_slow(self, begun, count):
        time.sleep(0.5)
        self.answer(CONTENT, begun)

    def do_cut(self, begun, count):                                # every connection ends after 1.3 MB
        self.answer(CONTENT, begun, upto=1_300_000)

    def do_cutwithoutrange(self, begun, count):
        self.answer(CONTENT, 0, upto=1_300_000 if count == 1 else None)

    def do_nolength(self, begun, count):
        self.answer(CONTENT, begun, length=False)

    def do_dead(self, begun, count):                               # a bit of it, then nothing any more
        if count > 1:
            return self.answer(b"", status=503)
        self.answer(CONTENT, begun, upto=1_300_000)

    def do_corrupted(self, begun, count):
        self.answer(CONTENT[:-1] + b"x", begun)

    def do_redirect(self, begun, count):
        self.answer(b"", status=302, Location="/good/file")

    def do_circle(self, begun, count):
        self.answer(b"", status=302, Location="/circle/file")

    def do_html(self, begun, count):
        self.answer(b"<!DOCTYPE html><html>Please log in</html>", 0, Content_Type="text/html")

    def do_lfs(self, begun, count):
        self.answer(b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3000000\n")

    def do_busy(self, begun, count):
        if count == 1:
            return self.answer(b"", status=429, Retry_After="17")
        if count == 2:
            return self.answer(b"", status=503)
        self.answer(CONTENT, begun)

    def do_missing(self, begun, count):
        self.answer(b"", status=404)

    def do_endless(self, begun, count):
        self.answer(CONTENT * 4, 0, length=False)


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.handle_error = [], lambda *_: None            # a client that hangs up is no failure
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.shutdown()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """Fetch /BEHAVIOUR/file to tmp_path/x; `.waits` are the seconds it would have waited."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def call(behaviour, **options):
        return fetch(f"{server.url}/{behaviour}/file", tmp_path / "x", BLOB, sleep=call.waits.append, **options)
    call.waits = []
    return call


def part(folder):
    return folder / f".x.{BLOB[:8]}.part"


def is_whole(folder):
    """The file, and nothing else."""
    return os.listdir(folder) == ["x"] and (folder / "x").read_bytes() == CONTENT


def test_blob_ids_are_those_of_git(tmp_path):
    (tmp_path / "x").write_bytes(b"what is up, doc?")                 # of the Pro Git book, chapter 10.2
    assert blob_id(tmp_path / "x") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


@pytest.mark.parametrize("behaviour", ["good", "redirect", "nolength"])
def test_a_good_file(get, tmp_path, server, behaviour):
    assert get(behaviour) is True and is_whole(tmp_path)
    asked = len(server.asked)
    assert get(behaviour) is False and len(server.asked) == asked                     # intact: not asked for again
    assert get.waits == []


def test_a_cut_connection_goes_on_where_it_ended(get, tmp_path, server):
    get("cut")
    assert is_whole(tmp_path)
    assert [begun for _, begun in server.asked] == [None, "bytes=1300000-", "bytes=2600000-"] and get.waits == [1, 1]


def test_a_server_without_parts_is_asked_for_the_whole_again(get, tmp_path, server):
    get("cutwithoutrange")
    assert is_whole(tmp_path) and [begun for _, begun in server.asked] == [None, "bytes=1300000-"]


def test_a_later_call_goes_on_with_what_an_earlier_one_left(get, tmp_path, server):
    with pytest.raises(InputError, match="503.*call the command again; it goes on where it stopped"):
        get("dead")
    assert get.waits == [1, 1, 2, 4, 8] and part(tmp_path).read_bytes() == CONTENT[:1_300_000]
    get("good")
    assert is_whole(tmp_path) and server.asked[-1] == ("/good/file", "bytes=1300000-")


def test_a_part_that_is_complete_or_of_another_file(get, tmp_path, server):
    part(tmp_path).write_bytes(CONTENT)                            # killed before it got its name
    get("good")
    assert is_whole(tmp_path) and server.asked[-1][1] == "bytes=3000000-"
    for foreign in (b"x" * 1000, CONTENT + b"x"):
        (tmp_path / "x").unlink()
        part(tmp_path).write_bytes(foreign)
        get("good")
        assert is_whole(tmp_path) and server.asked[-1][1] is None


@pytest.mark.parametrize("behaviour, said", [
    ("corrupted", "3000000 bytes whose git blob id is"), ("html", "gives a web page"), ("lfs", "Git LFS pointer"),
    ("missing", "the server says 404"), ("circle", "the server says 302"),
    ("endless", "is larger than the 4000000 bytes")])
def test_what_is_not_the_file_is_refused_and_leaves_nothing(get, tmp_path, behaviour, said):
    with pytest.raises(InputError, match=said) as error:
        get(behaviour, limit=4_000_000)
    assert "\n" not in str(error.value) and f"/{behaviour}/file" in str(error.value)
    assert not (tmp_path / "x").exists() and not part(tmp_path).exists() and get.waits == []


def test_a_size_beyond_the_limit_is_refused_before_it_is_fetched(get, tmp_path):
    with pytest.raises(InputError, match="has 3000000 bytes, more than the 1000 that are expected"):
        get("good", limit=1000)
    assert not part(tmp_path).exists()


def test_a_busy_server_is_asked_again_when_it_said(get, tmp_path):
    get("busy")
    assert is_whole(tmp_path) and get.waits == [17, 2]


def test_nobody_there(tmp_path):
    waits = []
    with pytest.raises(InputError, match="cannot be fetched .*refused.*check the connection and the proxy"):
        fetch("http://127.0.0.1:1/file", tmp_path / "x", BLOB, sleep=waits.append)
    assert waits == [1, 2, 4, 8]


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setattr(Handler, "do_", Handler.do_good, raising=False)      # it is asked for http://...
    fetch("http://nowhere.invalid/good/file", tmp_path / "x", BLOB)
    assert server.asked[0][0] == "http://nowhere.invalid/good/file" and is_whole(tmp_path)


def test_another_file_of_that_name_is_kept(get, tmp_path):
    (tmp_path / "x").write_bytes(b"mine")
    with pytest.raises(InputError, match="exists with another content"):
        get("good")
    assert (tmp_path / "x").read_bytes() == b"mine"
    with pytest.raises(InputError, match="blob id"):
        get("corrupted", overwrite=True)
    assert (tmp_path / "x").read_bytes() == b"mine"
    get("good", overwrite=True)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_full_disk_keeps_what_was_fetched(get, tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            if self.file.tell() + len(data) > 2_500_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)
    monkeypatch.setattr(download, "open", lambda *how: open(*how) if "rb" in how else Full(open(*how)),  # noqa: SIM115
                        raising=False)
    with pytest.raises(OSError, match="No space left") as error:
        get("good")
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(part(tmp_path))
    assert not (tmp_path / "x").exists() and part(tmp_path).read_bytes() == CONTENT[:2 << 20]
    monkeypatch.undo()
    get("good")
    assert is_whole(tmp_path)


def test_two_processes_at_once(server, tmp_path):
    program = (f"import sys; sys.path.insert(0, {str(ROOT)!r}); from cxr.weights.download import fetch; "
               f"print(fetch({server.url + '/slow/file'!r}, {str(tmp_path / 'x')!r}, {BLOB!r}))")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "NO_PROXY": "127.0.0.1"}, **options)
            for _ in range(2)]
    assert sorted(process.communicate(timeout=60)[0].strip() for process in both) == ["False", "True"]
    assert len(server.asked) == 1 and is_whole(tmp_path)


# --- what is offered -----------------------------------------------------------------------------------------------

def test_the_published_files_are_pinned():
    assert [one.target.name for one in DOWNLOADS] == ["model_paddle.pdparams", "model_torch.pdparams", "model.pth.tar"]
    for one in DOWNLOADS:
        assert len(one.commit) == len(one.blob) == 40 and one.target.parent == ROOT / "pretrained_models"
    assert DOWNLOADS[0].url() == ("https://raw.githubusercontent.com/jm12138/Paddle-CheXNet/"
                                  "a1859d0e9a3e372c0ef6b1e2631e0ea3e8cd02ac/pretrained_models/model_paddle.pdparams")
    page = (ROOT / "pretrained_models" / "README.md").read_text()
    assert all(one.blob in page and one.commit in page for one in DOWNLOADS)


def test_download_of_cam_knows_its_own_weights_only(get, server, tmp_path, monkeypatch):
    offered = Download(tmp_path / "x", "good", "commit", "file", BLOB, "about")
    monkeypatch.setattr(download, "SERVER", server.url)
    monkeypatch.setattr(Download.url, "__defaults__", (server.url,))
    fetch_published(tmp_path / "x", [offered])
    assert is_whole(tmp_path) and offered.state() == "intact"
    (tmp_path / "x").write_bytes(b"")
    assert offered.state() == "another content"
    with pytest.raises(InputError, match="mine.pdparams cannot be downloaded: --download knows .*x"):
        fetch_published("mine.pdparams", [offered])


def call(*arguments, status=0, **environ):
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "fetch_weights.py"), *map(str, arguments)],
                          capture_output=True, text=True, env={**os.environ, "NO_PROXY": "127.0.0.1", **environ})
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_the_command(server, tmp_path):
    (tmp_path / "paddle.py").write_text("raise SystemExit('Paddle was imported')")
    assert "examples:" in call("--help", PYTHONPATH=str(tmp_path))
    (tmp_path / "model_torch.pdparams").write_bytes(b"damaged")
    lines = call("--list", "--save_dir", tmp_path).splitlines()
    assert [line.split()[1] for line in lines] == ["missing", "another", "missing"]
    error = call("model_paddle.pdparams", "--save_dir", tmp_path / "new", "--server", server.url + "/good", status=2)
    assert "3000000 bytes whose git blob id is" in error and "157762232cedb82c18ed4a1347b94a87fc323b5a" in error
    assert server.asked[-1][0].endswith(f"{DOWNLOADS[0].commit}/pretrained_models/model_paddle.pdparams")
    assert "'nothing' is not published: name one of model_paddle.pdparams" in call("nothing", status=2)
