"""The network as a CAM method runs it: at the speed of an inference engine where it can be, else in plain Paddle."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr.cam import METHODS
from cxr.cam.base import BaseCAM
from cxr.data.dataset import XrayDataset
from cxr.errors import InputError
from cxr.inference.predictor import EngineModel, Predictor, precision_cost
from cxr.models.restore import Restored


@dataclass(frozen=True)
class Network:
    """What a CAM method runs.

    Attributes:
        model: the trained model, or its head behind an engine.
        target: name of the target layer in `model`.
        layer: name of the same layer in the trained model, which results say.
        predictor: the engine; None in plain Paddle.
    """
    model: Any
    target: str
    layer: str
    predictor: Predictor | None = None


def choose_network(model, last: str, *, layer: str | None = None, engine: str = "auto", precision: str = "float32",
                   shuffles_weights: bool = False) -> Network:
    """The fastest way to run a model that still reaches what is to be explained.

    Args:
        model: in eval mode, of a recipe.
        last: name of the layer whose output is `features(x)`, the only one that an engine gives.
        layer: name of the target layer; None is the last one.
        engine: of `cxr.inference.ENGINES`.
        precision: of `cxr.inference.PRECISIONS`.
        shuffles_weights: whether the randomisation check follows: an exported network would not notice what it does
            to the weights of the model.

    Raises:
        InputError: less than float32 was asked of plain Paddle, or the engine does not run here.
    """
    if engine != "dygraph" and layer in (None, last) and not shuffles_weights:
        predictor = Predictor(model, engine, precision=precision)
        return Network(EngineModel(model, predictor), EngineModel.LAYER, last, predictor)
    if precision != "float32":
        plain = ("--engine dygraph" if engine == "dygraph" else "--faithfulness" if shuffles_weights else
                 f"--layer {layer}")
        raise InputError(f"{plain} runs the network in plain Paddle, which knows float32 alone: leave it away, or "
                         f"--precision {precision}.")
    return Network(model, layer or last, layer or last)


def cost_of_precision(network: Network, restored: Restored, paths: Sequence[Path]) -> str:
    """What the precision of the network's engine costs on these images, a sentence."""
    images = XrayDataset("", list(paths), np.zeros(len(paths)), (), restored.preprocess)
    return precision_cost(network.predictor, restored.model, images)


def make_method(name: str, network: Network, *, top_k: int | None = None) -> BaseCAM:
    """A CAM method on a network; the slow ones show a bar.

    Args:
        name: of `cxr.cam.registry`.
        network: what it explains.
        top_k: how many channels ScoreCAM tries; None is all of them.

    Raises:
        InputError: the layer does not exist; the sentence says close names.
    """
    options = {"scorecam": {"progress": True, "top_k": top_k}, "ablationcam": {"progress": True}}
    return METHODS[name](network.model, network.target, **options.get(name, {}))
