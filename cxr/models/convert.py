"""Weights of the same network under other names: what `tools/convert.py` does.

A recipe lists, as `Layout`s, the names that others gave to the layers of its architectures. A file is recognised by its
keys alone; its shapes are then compared with those of our model.
"""
from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.models.recipe import Recipe
from cxr.models.restore import metadata
from cxr.weights import save_weights
from cxr.weights.paddle_files import check_state, read_weights
from cxr.weights.torch_files import is_torch, read_torch, write_torch

# Parts of a layer: Paddle's name -> PyTorch's.
_PARTS = {
    "conv": {"weight": "weight"},
    "norm": {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"},
    "linear": {"weight": "weight", "bias": "bias"},
}
_COUNTER = "num_batches_tracked"                   # of PyTorch's batch norms, of use only without a momentum


@dataclass(frozen=True)
class Layout:
    """The names that somebody else gave to the layers of one architecture of ours.

    Args:
        source: whose they are, for people: "torchvision DenseNet121".
        framework: "torch" or "paddle"; PyTorch keeps linear weights as (out, in), Paddle as (in, out).
        arch: options of `Recipe.build`.
        layers: `(kind, our name, their name)` in the order of the network, kind "conv", "norm" or "linear"; the
            classifier is the last.
        renames: `(pattern, replacement)` for keys of older versions.
    """
    source: str
    framework: str
    arch: Mapping
    layers: Sequence[tuple[str, str, str]]
    renames: Sequence[tuple[str, str]] = ()

    @cached_property
    def keys(self) -> dict[str, str]:
        """Our key -> their key."""
        return {f"{ours}.{part}": f"{theirs}.{torch_part if self.framework == 'torch' else part}"
                for kind, ours, theirs in self.layers for part, torch_part in _PARTS[kind].items()}

    @property
    def classifier(self) -> tuple[str, str]:
        """Our name and theirs of the last linear layer."""
        return self.layers[-1][1:]

    def wanted(self, backbone: bool) -> dict[str, str]:
        """`keys`, without those of the classifier for a `backbone`."""
        return {ours: theirs for ours, theirs in self.keys.items()
                if not backbone or not ours.startswith(f"{self.classifier[0]}.")}

    def _turned(self, ours: str, value: np.ndarray) -> np.ndarray:
        turned = self.framework == "torch" and ours == f"{self.classifier[0]}.weight" and value.ndim == 2
        return np.ascontiguousarray(value.T) if turned else value

    def to_ours(self, state: Mapping[str, np.ndarray], backbone: bool) -> dict[str, np.ndarray]:
        """Their weights under our names."""
        return {ours: self._turned(ours, state[theirs]) for ours, theirs in self.wanted(backbone).items()}

    def to_theirs(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Our weights, with or without the classifier, under their names; PyTorch's counters are 0."""
        result = {}
        for ours, theirs in self.keys.items():
            if ours in state:
                result[theirs] = self._turned(ours, state[ours])
            if theirs.endswith(".running_var"):
                result[theirs.replace("running_var", _COUNTER)] = np.zeros((), "int64")
        return result

    def named(self, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`state` with the usual differences taken away: old names, a prefix, a classifier in a `Sequential`."""
        result = dict(state)
        for pattern, replacement in self.renames:
            result = {re.sub(pattern, replacement, key): value for key, value in result.items()}
        first = next(iter(self.keys.values()))
        prefixes = [key[:-len(first)] for key in result if key == first or key.endswith(f".{first}")]
        prefix = min(prefixes, key=len, default="")
        if all(key.startswith(prefix) for key in result):
            result = {key[len(prefix):]: value for key, value in result.items()}
        head = self.classifier[1]
        inner = {match[1] for match in (re.match(rf"({re.escape(head)}\.\d+)\.", key) for key in result) if match}
        if len(inner) == 1 and not any(f"{head}.{part}" in result for part in ("weight", "bias")):
            old, = inner
            result = {head + key[len(old):] if key.startswith(f"{old}.") else key: value
                      for key, value in result.items()}
        return result


@dataclass(frozen=True)
class Converted:
    """A checkpoint under our names.

    Attributes:
        state: our key -> array; linear weights are (in, out).
        meta: the metadata that goes with it.
        layout: what it was.
    """
    state: dict[str, np.ndarray]
    meta: dict
    layout: Layout


def read_any(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """`(state, meta)` of a checkpoint of Paddle or PyTorch.

    Raises:
        InputError: the file cannot be read as either.
    """
    return (read_torch if is_torch(path) else read_weights)(path)


def convert(recipe: Recipe, source: str | os.PathLike, class_names: Sequence[str] | None = None,
            backbone: bool = False, preprocess: Preprocess | None = None) -> Converted:
    """Read a checkpoint of any known layout for a model of `recipe`.

    Args:
        recipe: of the model.
        source: the checkpoint.
        class_names: what the outputs stand for (default: what the file says, or the recipe where the number agrees,
            or `class_0`, `class_1`, ...).
        backbone: leave the classifier out, whatever it looks like.
        preprocess: what the weights were trained with (default: what the file says, or the recipe).

    Returns:
        The weights under our names.

    Raises:
        InputError: the file cannot be read, keys are missing or left over (it names them), shapes do not fit, or there
            are not as many class names as outputs.
    """
    path = Path(source)
    state, meta = read_any(path)
    if meta.get("recipe", recipe.name) != recipe.name:
        raise InputError(f"{path} was trained as {meta['recipe']}, not {recipe.name}: convert it as {meta['recipe']}.")
    layout, state = recognise(path, state, recipe, backbone)
    ours = layout.to_ours(state, backbone)
    weight = ours.get(f"{layout.classifier[0]}.weight")
    outputs = len(recipe.class_names) if weight is None or weight.ndim != 2 else weight.shape[1]
    model = recipe.build(outputs, **layout.arch)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    check_state(ours, {key: shapes[key] for key in layout.wanted(backbone)}, path)
    if preprocess is None:
        preprocess = Preprocess.from_dict(meta["preprocess"]) if "preprocess" in meta else recipe.preprocess
    names = class_names or meta.get("class_names")
    if names is None:
        names = recipe.class_names if len(recipe.class_names) == outputs else [f"class_{i}" for i in range(outputs)]
    if len(names) != outputs and not backbone:
        raise InputError(f"{path} has {outputs} outputs, and {len(names)} class names were given: name each of them.")
    meta = {**meta, **metadata(recipe, layout.arch, names, preprocess)}
    if backbone:
        del meta["class_names"]
    return Converted(ours, meta, layout)


def recognise(path: Path, state: Mapping[str, np.ndarray], recipe: Recipe,
              backbone: bool) -> tuple[Layout, dict[str, np.ndarray]]:
    """The recipe's layout that has exactly the keys of a checkpoint.

    Args:
        path: of the checkpoint, for the sentence.
        state: as read.
        recipe: whose layouts are tried.
        backbone: the classifier does not count.

    Returns:
        The layout, and `state` under its names.

    Raises:
        InputError: no layout has these keys; it names what is missing or left over compared with the nearest.
    """
    state = {key: value for key, value in state.items() if key.rsplit(".", 1)[-1] != _COUNTER}
    nearest = None
    for layout in recipe.layouts():
        named, wanted = layout.named(state), set(layout.wanted(backbone).values())
        missing = [key for key in layout.keys.values() if key in wanted and key not in named]
        left_over = [key for key in named if key not in wanted
                     and not (backbone and key.startswith(f"{layout.classifier[1]}."))]
        if not missing and not left_over:
            return layout, named
        if nearest is None or len(missing) + len(left_over) < len(nearest[1]) + len(nearest[2]):
            nearest = layout, missing, left_over
    if nearest is None or len(nearest[1]) > len(nearest[0].keys) / 2:
        raise InputError(f"{path} has keys ({_some(list(state))}) of no architecture that {recipe.name} knows: look at "
                         "them with --list, or name another model.")
    layout, missing, left_over = nearest
    parts = [f"{len(keys)} of its keys {what} ({_some(keys)})"
             for what, keys in (("are missing", missing), ("are left over", left_over)) if keys]
    head = all(key.startswith(f"{layout.classifier[1]}.") for key in missing + left_over)
    raise InputError(f"{path} looks like {layout.source}, but " + " and ".join(parts) + ": "
                     + ("convert the rest with --backbone." if head else "it belongs to another variant."))


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:4]) + (", ..." if len(keys) > 4 else "")


def save(converted: Converted, target: str | os.PathLike, recipe: Recipe, to: str) -> Layout:
    """Write converted weights.

    Args:
        converted: of `convert`.
        target: the file.
        recipe: of the model.
        to: "paddle" for a `.pdparams` file of ours, "torch" for a file for torchvision's own class.

    Returns:
        The layout of what was written.

    Raises:
        InputError: torchvision has no such architecture.
        OSError: the disk is full.
    """
    if to == "paddle":
        save_weights(converted.state, target, converted.meta)
        return converted.layout
    arch = dict(converted.layout.arch)
    layout = next((layout for layout in recipe.layouts() if layout.framework == "torch" and layout.arch == arch), None)
    if layout is None:
        raise InputError(f"{target} cannot be written: torchvision has no counterpart of {recipe.name} with "
                         + ", ".join(f"{name} {value}" for name, value in arch.items()) + ".")
    write_torch(target, layout.to_theirs(converted.state), converted.meta)
    return layout
