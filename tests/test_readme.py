"""The pages: every command and block of README.md is run, in its order, and README_CN.md holds the same.

What takes long runs in a short setting, and what downloads or installs is checked instead (`RULES`). The steps build on
one another, as they do for a reader, so one alone (`-k`) may lack what an earlier one makes.
"""
from __future__ import annotations

import http.client
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from readme_scratch import ROOT, lay_out, steps, without_comments

PAGES = [ROOT / "README.md", ROOT / "README_CN.md"]
STEPS = steps(PAGES[0])
TRAIN = "--epoch 1 --batch_size 2 --max_steps 1"


class Reader:
    """Somebody at the project's root, who does what the page says."""

    def __init__(self, folder: Path):
        self.folder, self.servers = folder, {}

    def run(self, words, extra="", status=0) -> str:
        """A command, with more words at its end; what it printed."""
        words = [sys.executable if word in ("python", ".venv/bin/python") else word
                 for word in (*words, *extra.split())]
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=500,
                              env={**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONPATH": ""})
        printed = done.stdout + done.stderr
        assert done.returncode == status and "Traceback" not in printed, f"{shlex.join(words)}\n{printed}"
        return printed

    def serve(self, words, port, path) -> None:
        """Start a server and wait until it answers; it stops when all is done."""
        words = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
        with open(self.folder / f"{port}.log", "w") as log:
            self.servers[port] = subprocess.Popen(words, cwd=self.folder, stdout=log, stderr=log)
        deadline = time.time() + 120
        while not self.answers(port, path):
            assert time.time() < deadline and self.servers[port].poll() is None, Path(log.name).read_text()
            time.sleep(0.2)

    @staticmethod
    def answers(port, path) -> bool:
        try:
            connection = http.client.HTTPConnection("localhost", port, timeout=10)
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False

    def stop(self) -> None:
        for server in self.servers.values():
            server.terminate()
        for server in self.servers.values():
            server.wait(30)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reader")
    lay_out(folder)
    reader = Reader(folder)
    yield reader
    reader.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


# --- what is done with a command ----------------------------------------------------------------------------------

def plain(extra="", leaves=(), needs=()):
    """Run it with `extra` at its end; afterwards the files of `leaves` are there. `needs`: packages, or skip."""
    def do(reader, words):
        for package in needs:
            pytest.importorskip(package)
        reader.run(words, extra)
        for name in leaves:
            assert (reader.folder / name).exists(), f"{shlex.join(words)} has left no {name}"
    return do


def environment(reader, words):
    assert words == ["python3", "-m", "venv", ".venv"]


def installation(reader, words):
    """Nothing is installed: files and extras exist, and single packages are ones that the project asks for."""
    project = (ROOT / "pyproject.toml").read_text()
    for place, word in enumerate(words[2:], 2):
        if words[place - 1] == "-r":
            assert (ROOT / word).exists()
        elif word.startswith(".["):
            assert words[place - 1] == "-e"
            assert all(re.search(rf"^{extra} = ", project, re.M) for extra in word[2:-1].split(",")), word
        elif word not in ("-r", "-e"):
            assert f'"{word}' in project, f"{word} is in no extra"


def fetched(reader, words):
    listed = reader.run([*words[:2], "--list"])
    assert all(name in listed for name in words[2:])


def launched(reader, words):
    words[words.index("--gpus"):words.index("--gpus") + 2] = ["--nproc_per_node", "2"]
    plain(TRAIN, ["output/four_gpus/best.pdparams"])(reader, words)


def page(reader, words):
    pytest.importorskip("streamlit")
    port = free_port()
    reader.serve([*words, "--server.port", str(port), "--server.headless", "true"], port, "/_stcore/health")


def service(reader, words):
    pytest.importorskip("fastapi")
    reader.api = free_port()
    reader.serve([*words, "--port", str(reader.api)], reader.api, "/health")


def request(reader, words):
    if not shutil.which("curl") or not hasattr(reader, "api"):
        pytest.skip("needs curl and the service")
    answer = reader.run(["curl", "-sS", *(word.replace("localhost:8000", f"localhost:{reader.api}")
                                           for word in words[1:])])
    assert '"findings"' in answer


def linted(reader, words):
    if subprocess.run([sys.executable, "-m", "ruff", "--version"], capture_output=True).returncode:
        pytest.skip("needs ruff")
    reader.run(["python", "-m", *words])


RULES = [
    (r"python3 -m venv ", environment),
    (r"(\.venv/bin/)?pip install ", installation),
    (r"\.venv/bin/python tools/demo\.py$", plain("--per_class 12 --epoch 1", ["output/demo/demo.png"])),
    (r"\.venv/bin/python -m pytest -n 2 --dist loadfile$", plain("tests/test_files.py")),
    (r"python -m pytest tests/test_cam_call\.py$", plain("-k hirescam")),        # added by an earlier step
    (r"ruff check", linted),
    (r"python tools/fetch_weights\.py ", fetched),
    (r"python tools/train\.py covid_resnet .*--resume$",
     plain("--layers 18 --epoch 1 --batch_size 2 --max_steps 2", ["output/covid_resnet/best.pdparams"])),
    (r"python tools/train\.py covid_resnet ", plain(f"--layers 18 {TRAIN}", ["output/covid_resnet/best.pdparams"])),
    (r"python tools/train\.py chexnet ", plain(TRAIN, ["output/chexnet/best.pdparams"])),
    (r"python tools/train\.py pneumonia ", plain(f"--layers 18 {TRAIN}", ["output/pneumonia/best.pdparams"])),
    (r"python tools/train\.py mobilenet ", plain(TRAIN, ["output/mobilenet/best.pdparams"])),
    (r"python -m paddle\.distributed\.launch ", launched),
    (r"python tools/convert\.py ", plain()),
    (r"python tools/audit\.py ", plain(leaves=["output/audit/covid_resnet/findings.csv"])),
    (r"python tools/eval\.py chexnet .*--boxes", plain("--top_k 1 --resamples 20",
                                                       ["pretrained_models/eval/localisation.png"])),
    (r"python tools/eval\.py .*--fit", plain(leaves=["pretrained_models/model_paddle.thresholds.json"])),
    (r"python tools/eval\.py .*--predictions", plain("--resamples 20", ["report/report.html"])),
    (r"python tools/eval\.py .*--compare", plain("--resamples 20")),
    (r"python tools/eval\.py pneumonia ", plain("--resamples 20", ["output/pneumonia/eval/report.html"])),
    (r"python tools/eval\.py covid_resnet ", plain("--resamples 20", ["output/covid_resnet/eval/report.html"])),
    (r"python tools/eval\.py chexnet .*--ckpt", plain("--resamples 20", ["output/chexnet/eval/predictions.csv"])),
    (r"python tools/eval\.py chexnet ", plain("--resamples 20", ["pretrained_models/eval/report.html"])),
    (r"python tools/cam\.py .*--dicom", plain(leaves=["output/cams/1.cam.dcm", "output/cams/1.json"],
                                              needs=["pydicom"])),
    (r"python tools/cam\.py .*--guided --faithfulness$", plain(leaves=["output/cams/1.guided.png"])),
    (r"python tools/cam\.py chexnet 00000001_000\.png", plain(leaves=["output/cams/00000001_000.png"])),
    (r"python tools/cam\.py ", plain()),
    (r"python notebooks/methods\.py$", plain(leaves=["output/methods.jpg"])),
    (r"streamlit run tools/app\.py$", page),
    (r"python tools/serve\.py$", service),
    (r"curl ", request),
    (r"python tools/doctor\.py$", plain()),
    (r"python tools/install\.py$", plain("--dry-run")),
]

# What a block of Python finds and what it must have made: (a line of it, before, afterwards).
AROUND = [
    ("CheXNetCAM(N_CLASSES", "", "assert scores.shape == [1, 14] and cams.shape == [1, 14, 224, 224]\n"
                                 "assert len(CLASS_NAMES) == 14 and cams.dtype == paddle.uint8"),
    ('GradCAM(model, "block.7")', "", "assert maps.shape == (2, 4, 224, 224) and 0 <= maps.min() < maps.max() <= 1"),
    ("reshape_transform=vit_tokens", "import sys; sys.path.insert(0, 'tests'); import cxr; from paddle import nn\n"
     "from cam_models import Block, TinyViT, images, seeded; vit, x = TinyViT(), images(2, 32)\n"
     "vit.blocks = nn.LayerList([Block(16) for _ in range(9)]); seeded(vit)", "assert maps.shape == (2, 32, 32)"),
]


def run_python(reader, text):
    named = re.match(r"# (\S+\.py)\n", text)
    if named:                                        # a file to make
        (reader.folder / named[1]).parent.mkdir(exist_ok=True)
        (reader.folder / named[1]).write_text(text)
        return
    around = [(before, after) for line, before, after in AROUND if line in text]
    assert len(around) == 1, f"no rule, or several, for the block\n{text}"
    reader.run(["python", "-c", "\n".join([around[0][0], text, around[0][1]])])


def apply_diff(reader, text):
    """Its new CAM method is then a method like all others; on a mean and a linear layer it is Grad-CAM."""
    if not shutil.which("git"):
        pytest.skip("needs git")
    assert sum(line[0] == "+" and line[:3] != "+++" for line in text.splitlines() if line) == 7
    (reader.folder / "method.diff").write_text(text)
    reader.run(["git", "apply", "method.diff"])
    for method in ("hirescam", "gradcam"):
        reader.run(["python", "tools/cam.py", "chexnet", "00000001_000.png", "--npz", "--method", method,
                    "--save_dir", f"output/{method}"])
    new, known = (np.load(reader.folder / "output" / method / "00000001_000.npz")["maps"]
                  for method in ("hirescam", "gradcam"))
    assert np.ptp(new) > 0 and np.allclose(new, known, atol=1e-5)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_what_the_readme_says_works(step, reader):
    if step.language == "bash":
        rule = next((rule for pattern, rule in RULES if re.match(pattern, step.text)), None)
        assert rule, f"no rule says how to try `{step.text}`"
        rule(reader, shlex.split(step.text))
    else:
        {"python": run_python, "diff": apply_diff}[step.language](reader, step.text)


# --- the pages as texts -------------------------------------------------------------------------------------------

def test_every_rule_has_a_command():
    first = [next((pattern for pattern, _ in RULES if re.match(pattern, step.text)), None)
             for step in STEPS if step.language == "bash"]
    assert {pattern for pattern, _ in RULES} == set(first)


def test_both_languages_ask_for_the_same():
    english, chinese = ([without_comments(step) for step in steps(page)] for page in PAGES)
    assert english == chinese


def test_both_languages_have_the_same_parts():
    def parts(page):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        return (re.findall(r"^(#+) ", text, re.M), sorted(re.findall(r"\w+/[\w/]+\.(?:jpg|ipynb|py)\b", text)),
                len(re.findall(r"^\|", text, re.M)))
    assert parts(PAGES[0]) == parts(PAGES[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_headings_arrive(page):
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert links and set(links) <= anchors, set(links) - anchors


@pytest.mark.parametrize("page", [*PAGES, ROOT / "pretrained_models" / "README.md"], ids=lambda page: str(page)[-12:])
def test_no_path_of_a_machine(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.~])/(home|root|Users|work|tmp|mnt|data)/|\b[A-Z]:\\", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_exist(page):
    """Also those that are named in passing. Others' own: pip, pytest, curl, Paddle's launcher, Streamlit."""
    others = {"--data-binary", "--dist", "--gpus", "--nproc_per_node", "--nnodes", "--master", "--server.address"}
    known = set(re.findall(r"\"(--[\w-]+)\"", "".join(path.read_text(encoding="utf-8") for folder in (
        "tools", "chexnet", "covid_resnet", "cxr", "notebooks") for path in (ROOT / folder).rglob("*.py"))))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", page.read_text(encoding="utf-8")))
    assert named - others - {"--help"} <= known, named - others - known
