"""Class activation maps for any Paddle model: nine methods, guided backpropagation, faithfulness.

    from cxr.cam import GradCAM

    with GradCAM(model, "block.15") as cam:
        maps = cam(x)                       # (B, H, W) in [0, 1]

Start at `base.BaseCAM` for what a call does and at `methods` for the methods. The names load on first use, so that
`registry` and `regions` can be had without Paddle. `METHODS` has the class of every method, by its name there.
"""
from __future__ import annotations

from importlib import import_module
from typing import Any

from cxr.cam.registry import REGISTRY

_HOME = {**{method.class_name: "methods" for method in REGISTRY.values()}, "GuidedBackprop": "guided",
         "list_layers": "layers", "pvt_tokens": "transforms", "swin_tokens": "transforms", "vit_tokens": "transforms"}
__all__ = [*_HOME, "METHODS"]


def __getattr__(name: str) -> Any:
    if name == "METHODS":
        methods = import_module("cxr.cam.methods")
        return {key: getattr(methods, method.class_name) for key, method in REGISTRY.items()}
    if name not in _HOME:
        raise AttributeError(f"module 'cxr.cam' has no attribute '{name}'")
    return getattr(import_module(f"cxr.cam.{_HOME[name]}"), name)
