"""Small checkpoints with random weights, and uploads, for the tests of service and page."""
from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import paddle

from chexnet.recipe import CheXNetRecipe
from covid_resnet.recipe import CovidResNetRecipe
from cxr.data import phantom
from cxr.metrics.thresholds import Operating, write_operating
from cxr.models.recipe import Recipe
from cxr.models.restore import metadata
from cxr.weights import save_weights

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (CheXNetRecipe(), CovidResNetRecipe())}
FINDINGS = ("Effusion", "Mass", "Hernia")


def write_checkpoints(folder: Path) -> dict[str, Path]:
    """A ResNet18 of four exclusive classes and a CheXNet of three findings with thresholds, by the recipe's name."""
    paddle.seed(1)
    resnet, chexnet = RECIPES["covid_resnet"], RECIPES["chexnet"]
    model = resnet.build(4, layers=18)
    model.classifier.weight.set_value(model.classifier.weight * 0.02)         # or the softmax of such a net is 0 or 1
    paths = {"covid_resnet": folder / "resnet" / "best.pdparams", "chexnet": folder / "chexnet" / "best.pdparams"}
    save_weights(model, paths["covid_resnet"],
                 metadata(resnet, {"layers": 18}, resnet.class_names, resnet.preprocess))
    save_weights(chexnet.build(3), paths["chexnet"], metadata(chexnet, chexnet.arch, FINDINGS, chexnet.preprocess))
    write_operating(paths["chexnet"], Operating({"Effusion": 0.0, "Mass": 1.0, "Hernia": float("nan")},
                                                dict.fromkeys(FINDINGS, 0.1), "youden", "none.txt"))
    return paths


def phantom_png(seed: int, size: int = 320) -> bytes:
    """A drawn X-ray as the content of a PNG file."""
    return cv2.imencode(".png", phantom.draw(seed % 4, seed, size).image)[1].tobytes()


def blank_png(side: int, text: bytes = b"") -> bytes:
    """A black PNG of any size in few bytes, with a compressed text in it."""
    def part(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    row = b"\0" * (side + 1)
    press = zlib.compressobj()
    pixels = b"".join(press.compress(row) for _ in range(side)) + press.flush()
    texts = part(b"zTXt", b"note\0\0" + text) if text else b""
    return (b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) + texts
            + part(b"IDAT", pixels) + part(b"IEND", b""))
