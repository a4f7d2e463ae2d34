"""What `tools/eval.py` does: judge a checkpoint or stored predictions, compare two systems, fit thresholds.

Stored predictions are judged without Paddle, so what needs it is imported where it is used.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr.data.lists import LabelList
from cxr.errors import InputError
from cxr.evaluation.case import Case
from cxr.evaluation.comparison import compare
from cxr.evaluation.predictions import match_all, read_predictions, write_predictions
from cxr.evaluation.report import Section
from cxr.evaluation.sections import data_section, judge
from cxr.metrics.bootstrap import RESAMPLES
from cxr.metrics.calibration import logits_from_scores
from cxr.metrics.classification import Report, evaluate, evaluate_scores, headline, log_loss, scores_from_logits
from cxr.metrics.published import comparable
from cxr.metrics.thresholds import Operating, fit_operating, operating_table, read_operating, write_operating
from cxr.models.recipe import Recipe
from cxr.utils import distributed
from cxr.utils.files import sha256

if TYPE_CHECKING:
    from cxr.data.dataset import XrayDataset
    from cxr.models.restore import Restored

Patients = Callable[[Sequence[str]], Sequence[str]]       # image names to the patient of each
_CROPS = 10


@dataclass(frozen=True)
class Judgement:
    """`title` and `sections` of the report, and the `text` for the console."""
    title: str
    sections: list[Section]
    text: str


@dataclass(frozen=True)
class Scoring:
    """How a model scores a data set.

    `ten_crop`: whether scores are averaged over ten crops. `batch_size`: images at once. `engine`, `precision`: see
    `cxr.inference.predictor.Predictor`. `workers`: threads that read images, None for one a core.
    """
    ten_crop: bool = False
    batch_size: int = 32
    engine: str = "auto"
    precision: str = "float32"
    workers: int | None = None

    @property
    def views(self) -> str:
        """What the model sees of each image, as a sentence shows it."""
        return "ten crops" if self.ten_crop else "one view"


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples are drawn, and the seed of the draws."""
    resamples: int = RESAMPLES
    seed: int = 0


# --- a checkpoint --------------------------------------------------------------------------------------------------

def judge_checkpoint(recipe: Recipe, ckpt: Path, restored: Restored, dataset: XrayDataset, *, patients: Patients,
                     folder: Path, scoring: Scoring, bootstrap: Bootstrap,
                     say: Callable[[str], None] = print) -> Judgement | None:
    """Score a data set with a model, write `predictions.csv`, and judge the scores.

    Args:
        recipe: of the model.
        ckpt: the file that the model was restored from; thresholds are looked for beside it.
        restored: the model (`cxr.models.restore`).
        dataset: the images and their labels (`cxr.data.dataset`).
        patients: gives the patient of each of some image names.
        folder: where `predictions.csv` goes.
        scoring: how scores are computed.
        bootstrap: how intervals are drawn.
        say: is called with what the user should know before the long work.

    Returns:
        The judgement; None in all processes but the first, where several share the images.

    Raises:
        InputError: for scores that are no numbers, and for thresholds of other weights.
    """
    operating = read_operating(ckpt)
    activation = restored.model.activation
    known_patients = patients(dataset.names)
    logits = compute_logits(restored, dataset, ckpt, scoring, say)
    if distributed.rank() > 0:
        return None
    report = evaluate(logits, dataset.labels, dataset.class_names, activation)
    write_predictions(folder / "predictions.csv", dataset.names, logits, dataset.labels, dataset.class_names,
                      activation)
    case = Case(scores_from_logits(logits, activation), dataset.labels, dataset.class_names, activation,
                known_patients)
    facts = {**weights_facts(recipe, ckpt), "Preprocessing": f"{restored.preprocess}; {scoring.views}",
             "List": str(dataset.list_file)}
    sections, table = judge_case(recipe, case, report, facts, dataset.names, operating, bootstrap)
    text = (f"{ckpt} on {len(dataset)} images{', ten crops' if scoring.ten_crop else ''}: "
            f"{headline(report.values)}\n{table}")
    return Judgement(f"{recipe.name}: {ckpt.name} on {dataset.list_file.name}", sections, text)


def fit_thresholds(ckpt: Path, restored: Restored, dataset: XrayDataset, rule: str, scoring: Scoring, *,
                   say: Callable[[str], None] = print) -> str:
    """Fit thresholds and a temperature on a data set, and store them beside the checkpoint.

    Args:
        ckpt: the file that the model was restored from.
        restored: the model.
        dataset: images that are not those of the test.
        rule: see `cxr.metrics.thresholds.parse_rule`.
        scoring: how scores are computed.
        say: is called with what the user should know before the long work.

    Returns:
        What was fitted, for the console.

    Raises:
        InputError: for an unknown rule, and for scores that are no numbers.
    """
    activation = restored.model.activation
    scores = scores_from_logits(compute_logits(restored, dataset, ckpt, scoring, say), activation)
    operating = fit_operating(scores, dataset.labels, dataset.class_names, activation, rule,
                              f"{dataset.list_file} ({len(dataset)} images, {scoring.views})")
    path = write_operating(ckpt, operating)
    return (f"Fitted on {operating.fitted_on} by the rule {operating.rule}: temperature {operating.temperature:.3f}\n"
            f"{operating_table(operating, scores, dataset.labels, dataset.class_names, activation)}\n"
            f"eval and cam find it in {path}.")


def compute_logits(restored: Restored, dataset: XrayDataset, ckpt: Path, scoring: Scoring,
                   say: Callable[[str], None]) -> np.ndarray:
    """Logits (N, crops, K) of a data set, whose transform is set; arguments as in `judge_checkpoint`.

    Raises:
        InputError: where some are no numbers.
    """
    from cxr.data.transforms import TenCrop
    from cxr.inference.predictor import Predictor, precision_cost, predict

    dataset.transform = TenCrop(restored.preprocess) if scoring.ten_crop else restored.preprocess
    batch_size = max(1, scoring.batch_size // _CROPS) if scoring.ten_crop else scoring.batch_size
    predictor = Predictor(restored.model, scoring.engine, precision=scoring.precision)
    if scoring.precision != "float32":
        say(precision_cost(predictor, restored.model, dataset))
    logits = predict(predictor, dataset, batch_size, scoring.workers)
    if not np.isfinite(logits).all():
        raise InputError(f"{ckpt} gives scores that are no numbers: its training diverged, use an earlier one.")
    return logits


# --- stored predictions --------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Stored:
    """Stored predictions of one or several systems beside the truth.

    `paths`: their files. `list_file`: of the truth. `names`: the images that all systems have, (N,). `cases`: one a
    system, of these images in this order. `remarks`: what does not match, a sentence each.
    """
    paths: Sequence[Path]
    list_file: Path
    names: list[str]
    cases: list[Case]
    remarks: list[str]


def read_stored(recipe: Recipe, paths: Sequence[Path], list_file: Path, class_names: Sequence[str] | None,
                patients: Patients) -> Stored:
    """Read stored predictions and bring them into the order of the list that holds the truth.

    Args:
        recipe: says how to read the list, and whether classes are exclusive.
        paths: one file a system.
        list_file: the list of images and their labels.
        class_names: in the order of the labels; None for those of the recipe.
        patients: gives the patient of each of some image names.

    Returns:
        The predictions of the images that every file has.

    Raises:
        InputError: for files that cannot be read, and where no image is left.
    """
    class_names = tuple(class_names or recipe.class_names)
    listed: LabelList = recipe.read_labels(list_file, class_names)
    systems = [read_predictions(path, class_names, recipe.activation) for path in paths]
    rows, scores, remarks = match_all(paths, systems, listed)
    names = [listed.names[row] for row in rows]
    known_patients = patients(names)
    cases = [Case(of_system, listed.labels[rows], class_names, recipe.activation, known_patients)
             for of_system in scores]
    return Stored(paths, list_file, names, cases, remarks)


def judge_predictions(recipe: Recipe, stored: Stored, ckpt: Path | None, bootstrap: Bootstrap) -> Judgement:
    """Judge the stored predictions of one system.

    Args:
        recipe: its name and what was published for it.
        stored: the predictions (`read_stored`).
        ckpt: the checkpoint whose thresholds to use, None for none.
        bootstrap: how intervals are drawn.

    Returns:
        The judgement.

    Raises:
        InputError: for thresholds of other weights.
    """
    (path,), (case,) = stored.paths, stored.cases
    operating = read_operating(ckpt) if ckpt else None
    # Figures come from the scores as they are: logits of what is next to 0 or 1 are no longer apart.
    loss = log_loss(logits_from_scores(case.scores, case.activation), case.labels, case.activation)
    report = evaluate_scores(case.scores, case.labels, case.class_names, case.activation, loss)
    facts = {"Predictions": str(path), **(weights_facts(recipe, ckpt) if ckpt else {}), "List": str(stored.list_file)}
    sections, table = judge_case(recipe, case, report, facts, stored.names, operating, bootstrap, stored.remarks)
    text = [*stored.remarks, f"{path} on {len(stored.names)} images: {headline(report.values)}", table]
    return Judgement(f"{recipe.name}: {path.name} on {stored.list_file.name}", sections, "\n".join(text))


def compare_predictions(recipe: Recipe, stored: Stored, titles: tuple[str, str], bootstrap: Bootstrap) -> Judgement:
    """The difference of two systems, the first minus the second.

    Args:
        recipe: whose name the report shows.
        stored: the predictions of both (`read_stored`).
        titles: what to call the systems.
        bootstrap: how intervals are drawn.

    Returns:
        The judgement.
    """
    result = compare(*stored.cases, titles, bootstrap.resamples, bootstrap.seed)
    first, second = titles
    facts = {first: str(stored.paths[0]), second: str(stored.paths[1]), "List": str(stored.list_file)}
    data = data_section(facts, stored.names, stored.cases[0], stored.remarks)
    text = [*stored.remarks, f"{first} minus {second} on {len(stored.names)} images:", result.table]
    return Judgement(f"{recipe.name}: {first} against {second} on {stored.list_file.name}",
                     [data, *result.sections], "\n".join(text))


# --- both ----------------------------------------------------------------------------------------------------------

def judge_case(recipe: Recipe, case: Case, report: Report, facts: Mapping[str, str], names: Sequence[str],
               operating: Operating | None, bootstrap: Bootstrap,
               remarks: Sequence[str] = ()) -> tuple[list[Section], str]:
    """Judge scores beside what was published for such a set.

    Args:
        recipe: with the published figures.
        case: what is judged.
        report: its point figures.
        facts: where it comes from, as the report shows it.
        names: of the images.
        operating: thresholds and temperature that were fitted on other images.
        bootstrap: how intervals are drawn.
        remarks: what the reader must know of the data.

    Returns:
        Sections of the report, and the table for the console.
    """
    columns, sentences = comparable(recipe.published_figures, len(names), case.class_names)
    result = judge(case, report, columns, operating, bootstrap.resamples, bootstrap.seed)
    return [data_section(facts, names, case, [*remarks, *sentences]), *result.sections], result.table


def weights_facts(recipe: Recipe, ckpt: str | os.PathLike) -> dict[str, str]:
    """Which model it is, as the report shows it."""
    return {"Model": recipe.name, "Weights": str(ckpt), "SHA-256 of the weights": sha256(ckpt)}
