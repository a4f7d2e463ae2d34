"""The published checkpoints of CheXNet: where they are, pinned by commit and content."""
from __future__ import annotations

from pathlib import Path

from cxr.weights.download import Download

FOLDER = Path(__file__).resolve().parent.parent / "pretrained_models"
_PADDLE = {"repository": "jm12138/Paddle-CheXNet", "commit": "a1859d0e9a3e372c0ef6b1e2631e0ea3e8cd02ac"}

DOWNLOADS = (
    Download(FOLDER / "model_paddle.pdparams", **_PADDLE, path="pretrained_models/model_paddle.pdparams",
              blob="157762232cedb82c18ed4a1347b94a87fc323b5a", about="trained with Paddle, mean ten-crop AUROC 0.847"),
    Download(FOLDER / "model_torch.pdparams", **_PADDLE, path="pretrained_models/model_torch.pdparams",
              blob="3d5512c5a1f2cc486be30f1931408ddbffd4d5bb", about="converted from arnoweng/CheXNet"),
    Download(FOLDER / "model.pth.tar", "arnoweng/CheXNet", "3d45ee77e2cfe6ec81bf1b87e2ed4e3fc10af6c1", "model.pth.tar",
              "14922ae7de18767793f6ac85cf51df950327d96c", "the PyTorch checkpoint of arnoweng/CheXNet",
              after="python tools/convert.py chexnet {path} {folder}/model.pdparams"),
)
