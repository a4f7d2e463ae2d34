"""The house rules: imports point down, requirements agree, nothing of this machine in the files."""
import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {"cxr": set(), "chexnet": {"cxr"}, "covid_resnet": {"cxr"}, "tools": {"cxr", "chexnet", "covid_resnet", "_cli"}}


def imported(path: Path) -> set[str]:
    """First names of everything that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            names.add(node.module.split(".")[0])
    return names

# The wings of `cxr`, from the street inwards: an import stays within its wing or goes to one further down this list.
WINGS = ("serving", "localisation", "explain", "training", "evaluation", "visual", "inference", "models", "cam", "data",
         "weights", "metrics", "device", "utils", "")      # "": errors, runtime


def wings_imported(path: Path) -> set[str]:
    """The wings of `cxr` that a file imports from, also inside functions; "" for what lies at its top."""
    wings = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        names = [module.split(".") for module in modules if module.split(".")[0] == "cxr"]
        wings |= {name[1] if len(name) > 1 and name[1] in WINGS else "" for name in names}
    return wings


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_only_from_those_below_it(wing):
    folder = ROOT / "cxr" / wing
    allowed = WINGS[WINGS.index(wing):]
    for path in folder.rglob("*.py") if wing else folder.glob("*.py"):
        above = wings_imported(path) - set(allowed)
        assert not above, f"{path.relative_to(ROOT)} is in {wing or 'no wing'} and imports upwards from {above}"


def test_every_folder_is_a_wing_and_a_package():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "cxr").rglob("*.py")}
    assert {folder.parts[1] for folder in folders if len(folder.parts) > 1} == set(WINGS) - {""}
    packages = (ROOT / "pyproject.toml").read_text().split("packages = [", 1)[1].split("]", 1)[0]
    assert {".".join(folder.parts) for folder in folders} == set(re.findall(r'"(cxr[\w.]*)"', packages))
    assert all((ROOT / folder / "__init__.py").exists() for folder in folders)


def test_the_faces_of_the_wings_need_no_paddle():
    """So `--help` is quick, and stored predictions are judged without it."""
    wings = ", ".join(f"cxr.{wing}" for wing in WINGS if wing)
    code = f"import sys, {wings}, cxr.cam.registry, cxr.cam.regions; assert 'paddle' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_down(room):
    for path in (ROOT / room).rglob("*.py"):
        own = {"chexnet", "covid_resnet", "cxr", "tools", "_cli"} & imported(path)
        assert own <= ROOMS[room] | {room}, path


def calls(path: Path):
    """`(line, what is called, number of arguments by position)` of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func), len(node.args)


# The values of a record, and the words of a command line.
OF_ANY_LENGTH = {"struct.pack", "pip"}


@pytest.mark.parametrize("room", ROOMS)
def test_no_call_passes_more_than_eight_arguments_by_position(room):
    for path in (ROOT / room).rglob("*.py"):
        long = [call for call in calls(path) if call[2] > 8 and call[1] not in OF_ANY_LENGTH]
        assert not long, f"{path.relative_to(ROOT)}: {long}"


def takes_flags(function: ast.FunctionDef) -> bool:
    """Whether a parameter of a function is what the command line was parsed into."""
    parameters = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
    return any(parameter.arg == "args" or "Namespace" in ast.unparse(parameter.annotation or ast.Constant(""))
               for parameter in parameters)


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "tools"])
def test_only_methods_of_recipes_take_parsed_flags(room):
    for path in (ROOT / room).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        of_recipes = {id(node) for owner in ast.walk(tree) if isinstance(owner, ast.ClassDef)
                      and owner.name.endswith("Recipe") for node in owner.body}
        flagged = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and takes_flags(node)
                   and id(node) not in of_recipes]
        assert not flagged, f"{path.relative_to(ROOT)}: {flagged}"


def test_settings_are_given_by_name():
    for path in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        assert not [call for call in calls(path) if call[1].split(".")[-1] == "Settings" and call[2]], path


def test_requirements_and_pyproject_ask_for_the_same():
    project = (ROOT / "pyproject.toml").read_text()

    def section(start):
        return re.findall(r'"([^"]+)"', project[project.index(start):].split("]", 1)[0].split("[", 1)[1])
    required = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    plain = {line for line in required if ";" not in line}
    paddles = {line.split(";")[0] for line in required if ";" in line}
    chosen = [set(section(f"\n{extra} = [")) for extra in ("gpu", "cpu")]
    opencv = chosen[0] & chosen[1]
    assert [one.split("<")[0] for one in opencv] == ["opencv-python"]
    assert set(section("dependencies = [")) - {"numpy"} | {"pytest", "pytest-xdist"} | opencv == plain
    assert paddles == (chosen[0] | chosen[1]) - opencv | {"numpy"}
    assert section("\nheadless = [") == [one.replace("-python", "-python-headless") for one in opencv]


def test_what_installs_the_project_alone_replaces_neither_paddle_nor_opencv():
    project = (ROOT / "pyproject.toml").read_text()
    required = project[project.index("dependencies = ["):project.index("[project.optional-dependencies]")]
    assert not re.search("paddlepaddle|opencv", required)
    assert '"numpy",' in required                # any: the Paddle that is there decides


@pytest.mark.parametrize("version, accepted", [("2.6.2", True), ("2.6.2.post120", True), ("2.6.1", False),
                                               ("2.7.0", False), ("3.0.0", False)])
def test_paddle_s_own_cuda_builds_are_accepted(version, accepted):
    requirements = pytest.importorskip("packaging.requirements")
    first = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("paddle"))
    assert requirements.Requirement(first).specifier.contains(version) is accepted


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_no_weights_no_large_files_no_path_of_a_machine():
    own = str(ROOT.parent)
    for path in tracked():
        if not path.exists():
            continue
        assert path.suffix not in (".pdparams", ".pth", ".dcm") and path.stat().st_size < 1_500_000, path
        if path.suffix in (".py", ".md", ".toml", ".txt", "") and len(own) > 1:
            assert f"{own}/" not in path.read_text(encoding="utf-8"), path


def test_links_in_the_pages_resolve():
    for page in (path for path in tracked() if path.suffix == ".md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"


LINUX = {"platform_system": "Linux", "platform_machine": "x86_64"}


@pytest.mark.parametrize("place, python, paddle", [
    (LINUX, "3.9", "paddlepaddle-gpu==2.6.2.*"),
    (LINUX, "3.12", "paddlepaddle-gpu==2.6.2.*"),
    (LINUX, "3.13", "paddlepaddle>=3.0"),
    ({"platform_system": "Linux", "platform_machine": "aarch64"}, "3.11", "paddlepaddle>=3.0"),
    ({"platform_system": "Darwin", "platform_machine": "arm64"}, "3.11", "paddlepaddle>=3.0"),
    ({"platform_system": "Darwin", "platform_machine": "x86_64"}, "3.11", "paddlepaddle>=3.0"),
    ({"platform_system": "Windows", "platform_machine": "AMD64"}, "3.10", "paddlepaddle-gpu==2.6.2.*"),
])
def test_every_platform_gets_one_paddle_and_the_numpy_that_fits(place, python, paddle):
    requirements = pytest.importorskip("packaging.requirements")
    chosen = []
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if ";" in line and not line.startswith("#"):
            requirement = requirements.Requirement(line)
            if requirement.marker.evaluate({**place, "python_version": python}):
                chosen.append(f"{requirement.name}{requirement.specifier}")
    assert chosen == [paddle, "numpy<2" if "2.6.2" in paddle else "numpy"]
