"""A recipe for X-rays in class folders: lists, the 7:2:1 split, and patients. A subclass brings the model."""
from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.data.lists import LabelList, read_patients
from cxr.data.transforms import Preprocess
from cxr.errors import InputError
from cxr.models.recipe import Recipe, TrainDefaults

if TYPE_CHECKING:                                  # so that --help need not wait for Paddle
    from paddle import Tensor
    from paddle.optimizer import Optimizer
    from paddle.optimizer.lr import LRScheduler

    from cxr.data.class_folders import Split
    from cxr.data.dataset import ListedDataset


class ClassFolderRecipe(Recipe):
    """Data with one folder of images for each class, exclusive classes, Adam whose rate falls along a cosine.

    A subclass names itself and builds the model (`name`, `summary`, `class_names`, `arch`, `build`, `layer`,
    `add_arch_arguments`); everything else may stay as it is here.
    """

    activation = "softmax"
    preprocess = Preprocess(resize=(224, 224), crop=None)
    cam_preprocess = preprocess
    method = "gradcam"
    classes = "top"
    defaults = TrainDefaults(epoch=10, batch_size=32, learning_rate=0.001)
    published = None
    published_source = ""

    def listed(self, data_dir: str | os.PathLike, label_list: str | os.PathLike | LabelList,
               class_names: Sequence[str], seed: int = 0) -> ListedDataset:
        """The data set of a list, transform not yet set.

        Args:
            data_dir: folder that the names in the list are relative to.
            label_list: a file, or a list in memory.
            class_names: what the indices stand for.
            seed: of the augmentation.

        Raises:
            InputError: as `cxr.data.dataset.ListedDataset`.
        """
        from cxr.data.dataset import ListedDataset
        return ListedDataset(data_dir, label_list, class_names, seed=seed)

    def read_labels(self, path: str | os.PathLike, class_names: Sequence[str]) -> LabelList:
        from cxr.data.class_folders import read_labels
        return read_labels(path, class_names)

    def add_train_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data_dir", required=True,
                            help="folder with one subfolder of images for each class, such as COVID/ and Normal/")
        parser.add_argument("--train_list", help="lines of `FOLDER/NAME INDEX` (default: train.txt in data_dir if it "
                                                 "is there, otherwise a 7:2:1 split is made and kept in save_dir)")
        parser.add_argument("--val_list", help="likewise val.txt")
        parser.add_argument("--patients", metavar="CSV",
                            help="table with the columns `file` and `patient`, so that no patient is in two splits "
                                 "(default: sources.csv in data_dir if it is there)")

    def add_test_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data_dir", help="folder that the names in the list are relative to")
        parser.add_argument("--test_list", help="lines of `FOLDER/NAME INDEX` (default: test.txt beside the "
                                                "checkpoint, where `train` put it, or in data_dir)")
        parser.add_argument("--val_list", help="the same for --fit (default: likewise val.txt)")
        parser.add_argument("--patients", metavar="CSV",
                            help="table with the columns `file` and `patient` (default: sources.csv in data_dir if it "
                                 "is there; otherwise every image counts as a patient)")

    def split(self, args: argparse.Namespace) -> Split:
        """As the user's lists say it, else as those in `save_dir` do when resuming, else made here, 7:2:1.

        Raises:
            InputError: one of --train_list and --val_list was given without the other, or the folder or the table of
                patients cannot be used.
        """
        from cxr.data.class_folders import SPLITS, Split, find_classes
        in_place, kept = ({part: Path(folder, f"{part}.txt") for part in SPLITS}
                          for folder in (args.data_dir, args.save_dir))
        if bool(args.train_list) != bool(args.val_list):
            raise InputError("--train_list and --val_list go together: give both or neither.")
        classes = find_classes(args.data_dir)
        names = tuple(classes)
        if args.train_list:
            return Split("given", {"train": Path(args.train_list), "val": Path(args.val_list)}, names)
        if all(path.exists() for path in in_place.values()):
            return Split("given", in_place, names)
        if args.resume and all(path.exists() for path in kept.values()):
            return Split("kept", kept, names)      # images that came into the folder since do not count
        return _make_split(classes, data_dir=args.data_dir, patients_table=args.patients, seed=args.seed)

    def train_sets(self, args: argparse.Namespace, split: Split | None = None) -> tuple[ListedDataset, ListedDataset]:
        from cxr.data.dataset import check_folders
        split = split or self.split(args)
        sets = (self.listed(args.data_dir, split.lists["train"], split.class_names, args.seed),
                self.listed(args.data_dir, split.lists["val"], split.class_names))
        for part, dataset in zip(("train", "val"), sets):
            check_folders(dataset, split.lists[part])
        return sets

    def test_set(self, args: argparse.Namespace, class_names: Sequence[str], ckpt: Path,
                 split: Split | None = None) -> ListedDataset:
        if split and not args.test_list:
            return self._of_split(args, split)
        return self._listed(args, args.test_list, "test", class_names, ckpt)

    def _of_split(self, args: argparse.Namespace, split: Split) -> ListedDataset:
        """The test set that belongs to a split."""
        listed = split.lists.get("test", Path(args.data_dir, "test.txt"))
        if isinstance(listed, Path) and not listed.exists():
            raise InputError(f"{listed} does not exist: name the list with --test_list.")
        return self.listed(args.data_dir, listed, split.class_names)

    def val_set(self, args: argparse.Namespace, class_names: Sequence[str], ckpt: Path) -> ListedDataset:
        return self._listed(args, args.val_list, "val", class_names, ckpt)

    def _listed(self, args: argparse.Namespace, given: str | None, part: str, class_names: Sequence[str],
                ckpt: Path) -> ListedDataset:
        """The set of a list that was given, or that `train` made."""
        if not args.data_dir:
            raise InputError("--data_dir is needed: name the folder that the names in the list are relative to.")
        if not given:
            places = [Path(ckpt).parent / f"{part}.txt", Path(args.data_dir, f"{part}.txt")]
            given = next((path for path in places if path.exists()), None)
            if given is None:
                raise InputError(f"neither {places[0]} nor {places[1]} exists: name the list with --{part}_list.")
        return self.listed(args.data_dir, given, class_names)

    def patients(self, args: argparse.Namespace, names: Sequence[str]) -> list[str]:
        """As the table of patients says it; without one every image counts as a patient.

        Raises:
            InputError: the table cannot be read, or knows the patient of none of the images.
        """
        table = args.patients or (args.data_dir and Path(args.data_dir, "sources.csv"))
        if not table or not (args.patients or table.exists()):
            return list(names)
        known = read_patients(table)
        if not any(name in known for name in names):
            raise InputError(f"{table} knows the patient of none of the images: its column `file` must hold names like "
                             f"{names[0]}.")
        # A name cannot be mistaken for a patient: it has a folder before it.
        return [known.get(name) or name for name in names]

    def optimizer(self, args: argparse.Namespace, parameters: Sequence[Tensor],
                  steps_per_epoch: int) -> tuple[Optimizer, LRScheduler]:
        from paddle.optimizer import Adam
        from paddle.optimizer.lr import CosineAnnealingDecay
        scheduler = CosineAnnealingDecay(args.learning_rate, args.epoch * steps_per_epoch)
        return Adam(scheduler, parameters=parameters), scheduler

    def augment(self, preprocess: Preprocess) -> Callable:
        return preprocess


def _make_split(classes: Mapping[str, Sequence[str]], *, data_dir: str | os.PathLike,
                patients_table: str | os.PathLike | None, seed: int) -> Split:
    """The 7:2:1 split of the images in the class folders, by patient where a table names the patients."""
    from cxr.data.class_folders import Split, as_label_list, split
    table = Path(patients_table or Path(data_dir, "sources.csv"))
    patients = read_patients(table) if patients_table or table.exists() else None
    names = [name for folder in classes.values() for name in folder]
    unknown = sum(name not in patients for name in names) if patients is not None else 0
    if patients is not None and unknown == len(names):
        raise InputError(f"{table} knows the patient of none of the images: its column `file` must hold names like "
                         f"{names[0]}.")
    notes = []
    if unknown:
        notes.append(f"{table} does not know the patient of {unknown} of {len(names)} images; each counts as its own.")
    if patients is None:
        notes.append("no table of patients, so images of one patient may fall into training and test alike, which "
                     "flatters the result; give one with --patients.")
    lists = {name: as_label_list(part) for name, part in split(classes, patients, seed).items()}
    return Split("made", lists, tuple(classes), by_patient=bool(patients), notes=tuple(notes))
