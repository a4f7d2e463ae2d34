"""The checkpoints on this machine, and which model each belongs to."""
from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr.errors import InputError
from cxr.models.recipe import Recipe
from cxr.utils.files import sha256


@dataclass(frozen=True)
class Checkpoint:
    """A weights file that can be used.

    Attributes:
        path: where it is.
        recipe: name of the recipe that it belongs to.
        class_names: what its outputs stand for.
        sha256: of its content, in hex.
    """
    path: Path
    recipe: str
    class_names: tuple[str, ...]
    sha256: str


class Catalogue:
    """The checkpoints below some folders, known by their metadata; each file is read once, until it changes.

    Args:
        recipes: by name, those that a checkpoint may belong to.
        folders: searched with their subfolders for `.pdparams` files; they need not exist.
    """

    def __init__(self, recipes: Mapping[str, Recipe], folders: Sequence[Path]) -> None:
        self.recipes, self.folders = recipes, [Path(folder) for folder in folders]
        self._known: dict[tuple, Checkpoint | str] = {}
        self._lock = threading.Lock()

    def scan(self) -> tuple[list[Checkpoint], list[str]]:
        """Look for checkpoints.

        Returns:
            `(usable, sentences about the others)`, in a stable order, those named `best` first.
        """
        with self._lock:                             # of several sessions that begin together one reads
            known = {}
            for path in self._paths():
                status = path.stat()
                key = (path, status.st_mtime_ns, status.st_size)
                known[key] = self._known.get(key) or self._describe(path)
            self._known = known
            found = list(known.values())
        usable = [entry for entry in found if isinstance(entry, Checkpoint)]
        usable.sort(key=lambda checkpoint: (checkpoint.recipe, checkpoint.path.stem != "best", checkpoint.path))
        return usable, [entry for entry in found if isinstance(entry, str)]

    def _paths(self) -> list[Path]:
        paths = {Path(parent, name) for folder in self.folders for parent, _, names in os.walk(folder)
                 for name in names if name.endswith(".pdparams") and name[0] != "."}
        return sorted(path for path in paths if path.is_file())

    def _describe(self, path: Path) -> Checkpoint | str:
        from cxr.weights.paddle_files import read_weights

        try:
            _, meta = read_weights(path)
            recipe = self._recipe_of(path, meta)
            return Checkpoint(path, recipe.name, tuple(meta.get("class_names", recipe.class_names)), sha256(path))
        except InputError as error:
            return str(error)

    def _recipe_of(self, path: Path, meta: Mapping) -> Recipe:
        if "recipe" not in meta:
            for recipe in self.recipes.values():
                if recipe.published and path.resolve() == recipe.published.resolve():
                    return recipe
            raise InputError(f"{path} does not say what model it belongs to: only published weights under their own "
                             "name are taken without metadata.")
        if meta["recipe"] not in self.recipes:
            raise InputError(f"{path} belongs to {meta['recipe']}, which this project does not have.")
        return self.recipes[meta["recipe"]]
