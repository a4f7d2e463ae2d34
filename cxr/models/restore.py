"""A model back from its checkpoint, and what a checkpoint says about its model."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.models.recipe import Recipe

if TYPE_CHECKING:                                  # so that --help need not wait for Paddle
    from paddle.nn import Layer


@dataclass(frozen=True)
class Restored:
    """A model with its weights, and what there is to know about its input and output.

    Attributes:
        model: in eval mode.
        class_names: what its outputs stand for.
        preprocess: what its input goes through.
        meta: what its checkpoint carries, `{}` for a bare published file.
    """
    model: Layer
    class_names: tuple[str, ...]
    preprocess: Preprocess
    meta: dict


def metadata(recipe: Recipe, arch: Mapping, class_names: Sequence[str], preprocess: Preprocess) -> dict:
    """What travels with a checkpoint so that `restore` needs no flags."""
    return {"recipe": recipe.name, "arch": dict(arch), "class_names": list(class_names),
            "preprocess": preprocess.to_dict()}


def restore(recipe: Recipe, ckpt: str | os.PathLike, fallback: Preprocess, arch: Mapping) -> Restored:
    """Build the model of a checkpoint and load it, in eval mode.

    Args:
        recipe: of the model.
        ckpt: a checkpoint of ours, or a bare published file.
        fallback: preprocessing for a file that carries none.
        arch: options of `recipe.build` for a file that carries none (`recipe.arch_of`, or `recipe.arch`).

    Returns:
        The model and what its file says of it.

    Raises:
        InputError: the file cannot be loaded or belongs to another recipe.
    """
    from cxr.weights.paddle_files import fill, read_weights

    path = Path(ckpt)
    recipe.check_checkpoint(path)
    state, meta = read_weights(path)
    if meta.get("recipe", recipe.name) != recipe.name:
        raise InputError(f"{path} was trained as {meta['recipe']}, not {recipe.name}: call the command with "
                         f"{meta['recipe']}.")
    class_names = tuple(meta.get("class_names", recipe.class_names))
    preprocess = Preprocess.from_dict(meta["preprocess"]) if "preprocess" in meta else fallback
    model = recipe.build(len(class_names), **{**arch, **meta.get("arch", {})})
    fill(model, state, path)
    model.eval()
    return Restored(model, class_names, preprocess, meta)
