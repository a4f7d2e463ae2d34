"""The notebooks: what is committed of them, and that every cell runs."""
import base64
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
ROOMS = ("cxr", "chexnet", "covid_resnet", "notebooks", "pretrained_models")

spec = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def read(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def cells(name: str, kind: str) -> list:
    """(source, cell) of all cells of a kind."""
    return [("".join(cell["source"]), cell) for cell in read(name)["cells"] if cell["cell_type"] == kind]


def outputs(name: str) -> list:
    return [output for _, cell in cells(name, "code") for output in cell["outputs"]]


def test_one_for_each_source():
    assert sorted(build.NAMES) == NOTEBOOKS


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_ran_from_top_to_bottom(name):
    counts = [cell["execution_count"] for _, cell in cells(name, "code")]
    assert counts == list(range(1, len(counts) + 1))
    assert {output["output_type"] for output in outputs(name)} <= {"stream", "display_data", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs(name)} == {"stdout"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_pictures_are_there_and_small(name):
    pictures = [output["data"] for output in outputs(name) if "data" in output]
    assert len(pictures) >= 4 and {kind for data in pictures for kind in data} == {"image/jpeg"}
    for data in pictures:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(data["image/jpeg"]), np.uint8), cv2.IMREAD_COLOR)
        assert min(picture.shape[:2]) > 100 and picture.std() > 5
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 600_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_nothing_of_the_machine_that_ran_it(name):
    notebook = read(name)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"} and "version" not in str(notebook["metadata"])
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    for output in outputs(name):
        assert not re.search(r"(?<![\w.])/(?:\w+/)+", "".join(output.get("text", "")))
    for source, _ in cells(name, "code"):
        paths = re.findall(r"[\"'](/[\w./-]+|[A-Z]:\\[^\"']*)[\"']", source)
        assert all(f"{path}/".startswith("/home/aistudio/") for path in paths), paths


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_text_is_in_both_languages(name):
    for source, _ in cells(name, "markdown"):
        prose = re.sub(r"```.*?```|\$\$.*?\$\$|`[^`]*`|\]\([^)]*\)", "", source, flags=re.S)
        assert re.search(r"[\u4e00-\u9fff]{2}", prose), f"no Chinese in: {source[:80]}"
        assert re.search(r"[A-Za-z]{2,}(?:\W+[A-Za-z0-9]+)+", prose), f"no English in: {source[:80]}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs(name, tmp_path, monkeypatch):
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package, reason=f"notebooks are run with {package}: pip install -e .[test]")
    for room in ROOMS:                           # without weights, so that every machine runs the same cells
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("*.pdparams", "__pycache__"))
    monkeypatch.setenv("PYTHONPATH", "")         # the copy is what the kernel must find
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    notebook = build.execute(tmp_path / "notebooks" / f"{name}.ipynb", short=True)
    executed = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in executed] == list(range(1, len(executed) + 1))
    assert list((tmp_path / "output" / "notebooks" / name).rglob("*.png"))


def test_a_cell_that_fails_is_told(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="notebooks are run with nbformat: pip install -e .[test]")
    nbclient = pytest.importorskip("nbclient", reason="notebooks are run with nbclient: pip install -e .[test]")
    pytest.importorskip("ipykernel", reason="notebooks are run with ipykernel: pip install -e .[test]")
    path = tmp_path / "broken.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        build.execute(path)


def test_what_depends_on_the_run_is_left_out():
    v4 = pytest.importorskip("nbformat", reason="notebooks are run with nbformat: pip install -e .[test]").v4
    printed = [v4.new_output("stream", name=name, text=text) for name, text in
               (("stdout", "one\n"), ("stderr", "a warning\n"), ("stdout", "two\n"))]
    shown = v4.new_output("display_data", data={"image/jpeg": "AAAA", "text/plain": "<Image>"})
    nothing = v4.new_output("execute_result", data={"text/plain": "<Axes>"})
    cell = v4.new_code_cell("x", outputs=[*printed, shown, nothing], metadata={"execution": {"started": "now"}})
    notebook = v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python", "version": "3.11.7"}})
    build.clean(notebook)
    assert cell.metadata == {} and "version" not in notebook.metadata["language_info"]
    assert [output.get("text") for output in cell.outputs] == ["one\ntwo\n", None]
    assert cell.outputs[1].data == {"image/jpeg": "AAAA"}


def test_the_command_says_how_it_is_used():
    done = subprocess.run([sys.executable, FOLDER / "build.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "cam_methods" in done.stdout


@pytest.mark.parametrize("missing", ["nbformat", "nbclient", "ipykernel"])
def test_a_package_that_is_missing_is_named(missing, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build.py"])
    monkeypatch.setattr(build, "execute", lambda _: pytest.fail("ran a notebook"))
    for name in ("nbformat", "nbclient", "ipykernel"):
        monkeypatch.setitem(sys.modules, name, None if name == missing else types.ModuleType(name))
    with pytest.raises(SystemExit) as ended:
        build.main()
    assert ended.value.code == 2 and f"{missing} is missing: pip install -e .[test]" in capsys.readouterr().err
