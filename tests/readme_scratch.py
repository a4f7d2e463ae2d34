"""For tests/test_readme.py: the steps that a page asks of its reader, and a folder laid out as the page says."""
from __future__ import annotations

import io
import re
import shlex
import shutil
import tokenize
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ("chexnet", "covid_resnet", "cxr", "tools", "notebooks", "tests", "pyproject.toml", "requirements.txt",
           "README.md")
LAYOUT = ""                                          # the language of a block that nobody runs: the folders


@dataclass(frozen=True)
class Step:
    """One thing to do: a command (`bash`, split into words), or a block of `python` or `diff`."""
    language: str
    text: str

    def __str__(self) -> str:
        return " ".join(self.text.split())[:70]


def steps(page: Path) -> list[Step]:
    """Everything in the page's fenced blocks, in its order; the commands of a line joined by && one by one."""
    found = []
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S):
        if language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    found += [Step(language, command) for command in shlex.join(words).split(" '&&' ")]
        elif language != LAYOUT:
            found.append(Step(language, text))
    return found


def without_comments(step: Step) -> Step:
    """The same for readers of every language."""
    if step.language != "python":
        return step
    text = re.sub(r"^# \S+\.py\n", lambda first: first[0].replace("#", "FILE", 1), step.text)
    words = [token.string for token in tokenize.generate_tokens(io.StringIO(text).readline)
             if token.type not in (tokenize.COMMENT, tokenize.NL)]
    return Step(step.language, " ".join(words))


def lay_out(folder: Path) -> None:
    """A copy of the project, phantoms in the place of the data sets, and small checkpoints under the names used."""
    for name in PROJECT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    _images(folder)
    _checkpoints(folder)


def _images(folder: Path) -> None:
    from chexnet.utility import CLASS_NAMES
    from covid_resnet.labels import CLASS_NAMES as FOLDERS
    from cxr.data import phantom
    from cxr.utils.files import write_csv, write_text

    def drawn(path: str, label: int, seed: int):
        found = phantom.draw(label, seed, 256)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / path), found.image)
        return found

    drawn("00000001_000.png", 0, 1)
    drawn("study/1.png", 1, 2)
    patients = [(f"{name}/{index}.png", "phantom", drawn(f"covid/{name}/{index}.png", label, index).patient)
                for label, name in enumerate(FOLDERS) for index in range(12)]
    write_csv(folder / "covid" / "sources.csv", ("file", "source_file", "patient"), patients)
    for part in ("train", "val", "test"):
        for label, name in enumerate(("NORMAL", "PNEUMONIA")):
            for index in range(4):
                drawn(f"chest_xray/{part}/{name}/person{index}_{part}.jpeg", label, index)

    rng, boxes = np.random.default_rng(0), []
    for part, begin in (("train", 0), ("val", 4), ("test", 8)):
        names = [f"{patient:08d}_000.png" for patient in range(begin, begin + 4)]
        # Every finding in half of the images, so that no AUROC is 0/0.
        labels = np.stack([rng.permutation([0, 1] * 2) for _ in CLASS_NAMES], 1)
        write_text(folder / "dataset" / "labels" / f"{part}_list.txt",
                   "".join(f"{name} {' '.join(map(str, row))}\n" for name, row in zip(names, labels)))
        for name in names:
            box = drawn(f"dataset/images/{name}", 0, int(name[:8])).box
            boxes.append((name, "Cardiomegaly", *(round(4 * value) for value in box)))
    write_csv(folder / "BBox_List_2017.csv", ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"), boxes[-2:])
    write_csv(folder / "theirs.csv", ("image", *(f"prob_{name}" for name in CLASS_NAMES)),
              [(name, *rng.uniform(size=len(CLASS_NAMES))) for name in names])


def _checkpoints(folder: Path) -> None:
    import paddle

    from chexnet.recipe import CheXNetRecipe
    from cxr.models.convert import convert, save
    from cxr.weights import save_weights

    paddle.seed(0)
    recipe, published = CheXNetRecipe(), folder / "pretrained_models" / "model_paddle.pdparams"
    save_weights(recipe.build(14), published)
    save(convert(recipe, published, None, False, None), folder / "model.pth.tar", recipe, "torch")
    paddle.save(paddle.vision.models.resnet18().state_dict(), str(folder / "resnet152.pdparams"))
