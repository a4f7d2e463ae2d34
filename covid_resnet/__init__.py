"""COVID ResNet: hand-built ResNet 18-152, Momentum with warm-up and cosine decay, Grad-CAM.

The names load on first use, so that `import covid_resnet` stays quick and without Paddle.
"""
from importlib import import_module
from typing import Any

import cxr  # noqa: F401  prepares the process before Paddle is imported

_HOME = {
    "BasicBlock": "resnet", "BottleneckBlock": "resnet", "ResNet": "resnet",
    "Cosine": "schedule", "CosineWarmup": "schedule",
    "CovidDataset": "data", "get_mean_std": "data",
    "GradCAM": "gradcam",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'covid_resnet' has no attribute '{name}'")
    return getattr(import_module(f"covid_resnet.{_HOME[name]}"), name)
