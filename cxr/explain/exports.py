"""Which files an explanation becomes, and writing those for other systems."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import numpy as np

from cxr.errors import InputError
from cxr.explain.explanation import Explanation
from cxr.explain.manifest import manifest, raw_maps
from cxr.explain.secondary_capture import secondary_capture
from cxr.utils.files import replacing, write_json


@dataclass(frozen=True)
class Exports:
    """What is written beside every picture for other systems.

    Attributes:
        json: `NAME.json`, the manifest of `cxr.explain.manifest`.
        npz: `NAME.npz`, the raw maps.
        dicom: `NAME.cam.dcm`, the picture as DICOM (`cxr.explain.secondary_capture`), of nobody.
        keep_identity: with `dicom`, copy patient and study of images that are DICOM themselves.
    """
    json: bool = False
    npz: bool = False
    dicom: bool = False
    keep_identity: bool = False

    def check(self) -> None:
        """Raise `InputError` for what cannot be written here, before any work is done."""
        if self.dicom:
            from cxr.data.dicom import require
            require("--dicom")
        elif self.keep_identity:
            raise InputError("--keep_identity says what goes into DICOM files: add --dicom, or leave it away.")

    def paths(self, picture: Path) -> dict[str, Path]:
        """Role -> file that goes beside a picture."""
        wanted = {"manifest": (self.json, ".json"), "maps": (self.npz, ".npz"), "dicom": (self.dicom, ".cam.dcm")}
        return {role: picture.with_suffix(suffix) for role, (asked, suffix) in wanted.items() if asked}

    def write(self, explanation: Explanation, picture: np.ndarray, path: Path, files: Mapping[str, str],
              derivation: str) -> None:
        """Write what was asked for beside a picture.

        Args:
            explanation: of the image, with its raw maps.
            picture: (H, W, 3) uint8 RGB, as it stands in `path`.
            path: of the picture.
            files: role -> name of all that is written of this image, for the manifest.
            derivation: how the picture was made, a sentence for the DICOM file.
        """
        for role, file in self.paths(path).items():
            if role == "manifest":
                write_json(file, manifest(explanation, files))
                continue
            content = (raw_maps(explanation) if role == "maps" else
                       secondary_capture(picture, derivation, explanation.seen.origin))
            with replacing(file) as stream:
                stream.write(content)


def output_paths(images: Sequence[tuple[Path, Path]], folder: Path) -> list[Path]:
    """A path below `folder` for each `(path, name)` of `cxr.data.images.find_images`: `NAME.png` in place of its
    suffix.

    Images that differ in their suffix alone keep it (`a.png` and `a.jpg.png`), with a number where that is taken too.

    Raises:
        InputError: a picture would take the place of an image to be read.
    """
    paths, taken = [], set()
    for _, name in images:
        choices = chain([name.with_suffix(".png"), Path(f"{name}.png")],
                        (Path(f"{name}.{number}.png") for number in count(2)))
        paths.append(next(folder / choice for choice in choices if choice not in taken))
        taken.add(paths[-1].relative_to(folder))
    sources = {path.resolve() for path, _ in images}
    for path in paths:
        for written in (path, guided_path(path), *Exports(dicom=True).paths(path).values()):
            if written.resolve() in sources:
                raise InputError(f"the picture {written} would overwrite an image to be read: choose another "
                                 "--save_dir.")
    return paths


def guided_path(path: Path) -> Path:
    """Where the guided picture goes that belongs to the picture `path`."""
    return path.with_suffix(".guided.png")
