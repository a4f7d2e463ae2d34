"""The commonest changes touch few files: what cxr/README.md says of them, made in a copy of the project.

A CAM method and a model are made by the steps of the first page (tests/test_readme.py).
"""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("A", "B", "C")


@pytest.fixture
def project(tmp_path):
    """A copy that can be edited."""
    for name in ("chexnet", "covid_resnet", "cxr", "tools", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def edit(project: Path, changes: dict) -> None:
    """Replace texts that occur once: file -> (old, new) pairs; the number of files is what the test is about."""
    for name, pairs in changes.items():
        text = (project / name).read_text(encoding="utf-8")
        for old, new in pairs:
            assert text.count(old) == 1, f"{name}: {old!r} occurs {text.count(old)} times"
            text = text.replace(old, new)
        (project / name).write_text(text, encoding="utf-8")


def run(project: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def judged(project: Path, *flags: str) -> str:
    """What `eval` prints of three images; its report lies in `report`."""
    (project / "theirs.csv").write_text("image,A,B,C\na.png,0.7,0.2,0.1\nb.png,0.2,0.7,0.1\nc.png,0.3,0.6,0.1\n")
    (project / "list.txt").write_text("a.png 0\nb.png 1\nc.png 2\n")
    return run(project, "tools/eval.py", "covid_resnet", "--predictions", "theirs.csv", "--labels", "list.txt",
               "--class_names", ",".join(NAMES), "--save_dir", "report", "--resamples", "20", *flags)


def test_a_metric_is_one_entry_of_one_table(project):
    edit(project, {"cxr/metrics/rates.py": [(
        'RATES: tuple[Rate, ...] = (\n',
        'RATES: tuple[Rate, ...] = (\n'
        '    Rate("NPV", lambda n: (n.rejections, n.rejections + n.misses), "always called"),\n')]})
    printed = judged(project)
    console = next(line for line in printed.splitlines() if "Precision" in line)
    report = (project / "report" / "report.md").read_text(encoding="utf-8")
    # A is called once, rightly: the two others are not called, and neither has it.
    row = next(line for line in report.splitlines() if line.startswith("| A |") and "1.000" in line)
    assert "NPV" in console and "NPV" in report and row.count("1.000") >= 2
    # Nobody calls C, so that its precision is 0/0; nobody calls all images of a class, so that NPV is not.
    assert "C (never called)" in report and "always called" not in report


def test_an_image_format_is_two_words_in_one_file(project):
    edit(project, {"cxr/data/images.py": [
        ('FORMATS = ("PNG", "JPEG", "BMP", "TIFF")', 'FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "PPM")'),
        ('SUFFIXES = (".png",', 'SUFFIXES = (".pgm", ".png",')]})
    (project / "images").mkdir()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(project / "images" / "a.pgm")
    code = ("import numpy as np; from cxr.data.images import find_images, read_image; "
            "(path, name), = find_images(['images']); image = read_image(path); "
            "assert image.shape == (6, 8, 3) and (image == np.arange(48).reshape(6, 8, 1)).all(); print(name)")
    assert run(project, "-c", code).strip() == "a.pgm"


def test_a_section_of_the_report_is_a_function_and_its_place_in_the_list(project):
    edit(project, {"cxr/evaluation/sections.py": [
        ("# --- ranking", "def _size_section(case: Case) -> Section:\n"
                          "    return Section('size', 'Size', [f'There are {len(case.labels)} images.'],\n"
                          "                   {'images': len(case.labels)})\n\n\n# --- ranking"),
        ("sections = [_ranking_section(", "sections = [_size_section(case), _ranking_section(")]})
    judged(project)
    assert "There are 3 images." in (project / "report" / "report.md").read_text(encoding="utf-8")
    assert "There are 3 images." in (project / "report" / "report.html").read_text(encoding="utf-8")
    assert json.loads((project / "report" / "report.json").read_text(encoding="utf-8"))["size"] == {"images": 3}
