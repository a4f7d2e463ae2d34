"""The sections of an evaluation report: how well a system ranks, decides and states probabilities, and how surely.

Every figure with an interval is a point figure of `cxr.metrics.classification` and its 95 % bootstrap interval over
patients.
"""
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from prettytable import PrettyTable

from cxr.evaluation.case import MEAN, Case, Evaluation, Figure
from cxr.evaluation.report import Note, Picture, Section, Table
from cxr.metrics import rates
from cxr.metrics.bootstrap import RESAMPLES, Resamples, interval
from cxr.metrics.calibration import at_temperature, reliability
from cxr.metrics.classification import Report, average_precision, mean
from cxr.metrics.published import PublishedFigures
from cxr.metrics.thresholds import Operating
from cxr.visual import charts


def judge(case: Case, report: Report, published: Sequence[PublishedFigures] = (), operating: Operating | None = None,
          resamples: int = RESAMPLES, seed: int = 0) -> Evaluation:
    """Ranking, decisions and calibration of a system.

    Args:
        case: what is judged.
        report: its point figures (`cxr.metrics.classification.evaluate`).
        published: columns to stand beside ours; the caller leaves out what belongs to another set.
        operating: thresholds and temperature that were fitted on other images.
        resamples, seed: of the bootstrap.

    Returns:
        The sections of the report, and the table for the console.
    """
    draws = Resamples(case.patients, resamples, seed)
    areas, precisions = _ranked(case, report, draws)
    decided, decided_by, decision_rates = _decisions(case, report, draws, published, operating)
    sections = [_ranking_section(case, draws, areas, precisions, published), decided,
                _calibration_section(case, report, operating)]
    return Evaluation(sections, _console(case, areas, precisions, decided_by, decision_rates, published))


# --- ranking -------------------------------------------------------------------------------------------------------

def _ranked(case: Case, report: Report, draws: Resamples) -> tuple[dict[str, Figure], dict[str, Figure]]:
    """AUROC and average precision of each class and their mean."""
    areas = np.array([report.values[f"AUROC_{name}"] for name in case.class_names])
    area_samples, precision_samples = draws.ranking(case.scores, case.truth)
    return (_figures(case, areas, area_samples),
            _figures(case, average_precision(case.scores, case.truth), precision_samples))


def _figures(case: Case, values: np.ndarray, samples: np.ndarray) -> dict[str, Figure]:
    """Values (K,) with the intervals of their resamples (R, K), by class, and last their mean."""
    values, samples = with_mean(values, samples)
    return {name: Figure(values[k], interval(samples[:, k])) for k, name in enumerate((*case.class_names, MEAN))}


def with_mean(values: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Append the mean over the classes whose value is defined.

    In a resample in which one of these is undefined, the mean is nan: over other classes it would be the mean of
    something else.

    Args:
        values: (K,), nan where undefined.
        samples: of the values in each resample, (R, K).

    Returns:
        (K + 1,) and (R, K + 1).
    """
    known = ~np.isnan(values)
    means = samples[:, known].mean(axis=1) if known.any() else np.full(len(samples), np.nan)
    return np.append(values, mean(values)), np.column_stack([samples, means])


def _ranking_section(case: Case, draws: Resamples, areas: Mapping[str, Figure], precisions: Mapping[str, Figure],
                     published: Sequence[PublishedFigures]) -> Section:
    truth = case.truth
    shown = [column for column in published if any(key.startswith("AUROC_") for key in column.values)]
    header = ["Type", "Images", "Patients", "AUROC (95 %)", *(column.source for column in shown),
              "Average precision (95 %)", "by chance"]
    rows, values = [], {}
    for k, name in enumerate((*case.class_names, MEAN)):
        key = "AUROC_avg" if name == MEAN else f"AUROC_{name}"
        beside = {column.source: column.values[key] for column in shown if key in column.values}
        share = truth.mean() if name == MEAN else truth[:, k].mean()
        images, patients = ("", "") if name == MEAN else (
            int(truth[:, k].sum()), len(np.unique(draws.patient[truth[:, k]])))
        rows.append([name, _count(images), _count(patients), str(areas[name]),
                     *(_published(column, key) for column in shown),
                     str(precisions[name]), f"{share:.3f}"])
        values[name] = {"AUROC": areas[name].to_json(), "average_precision": precisions[name].to_json(),
                        "share_of_positives": float(share), "published_AUROC": beside}
        if name != MEAN:
            values[name].update(images=images, patients=patients)
    blocks = ["AUROC is the chance that an image with the finding scores higher than one without it; 0.5 is guessing. "
              "Average precision is the area under the precision-recall steps; guessing gives the share of positives. "
              f"Intervals come from {draws.count:,} resamples of the {draws.patients:,} patients (seed {draws.seed}), "
              "each with all of its images. Repeated positives raise the average precision of rare findings, so its "
              "interval lies a little high.",
              Table(header, rows, (MEAN,)), *left_out(draws, areas, precisions)]
    bars = {name: (figure.value, figure.interval.low, figure.interval.high) for name, figure in areas.items()}
    marks = {column.source: {name: column.values.get("AUROC_avg" if name == MEAN else f"AUROC_{name}", np.nan)
                             for name in bars} for column in shown}
    # The line of guessing would squeeze figures that are all far from it.
    near = np.nanmin([low for _, low, _ in bars.values()] + [1.0]) < 0.65
    blocks += [
        Picture("auroc", charts.intervals(bars, "AUROC", marks, chance=0.5 if near else None),
                f"AUROC of each class with its 95 % interval{'; dashed: guessing' if near else ''}.", charts.DPI),
        Picture("roc", charts.roc(case.scores, truth, _titles(case.class_names, areas)),
                "ROC curves, with the area; dashed: guessing.", charts.DPI),
        Picture("precision_recall", charts.precision_recall(case.scores, truth, _titles(case.class_names, precisions)),
                "Precision-recall curves, with the average precision; dashed: share of positives.", charts.DPI)]
    return Section("ranking", "Ranking: AUROC and average precision", blocks, values)


def left_out(draws: Resamples, *figures: Mapping[str, Figure]) -> list[Note]:
    """What the reader must know about undefined figures and thin intervals.

    Args:
        draws: of the bootstrap.
        *figures: by class; the notes on undefined ones are about the first kind, AUROC.

    Returns:
        Notes, none where all is well.
    """
    notes = []
    areas = figures[0]
    undefined = [name for name, figure in areas.items() if np.isnan(figure.value) and name != MEAN]
    if undefined:
        notes.append(Note(f"Undefined (0/0), shown as nan and left out of the mean: AUROC of {', '.join(undefined)}, "
                          "whose images are all positive or all negative."))
    short = {name: draws.count - figure.interval.kept for name, figure in areas.items()
             if not np.isnan(figure.value) and figure.interval.kept < draws.count}
    if short and draws.patients > 1:
        counts = ", ".join(f"{'the mean' if name == MEAN else name} {count:,}" for name, count in short.items())
        notes.append(Note(f"Left out of the intervals, as they hold no positives or no negatives of a class: of "
                          f"{draws.count:,} resamples {counts}. An interval needs at least 40."))
    if any(figure.value == figure.interval.low == 1 for by_class in figures for figure in by_class.values()):
        notes.append(Note("An interval without width (1.000 to 1.000) means that there is no error among these images; "
                          "it is no proof that there will be none among others."))
    return notes


# --- decisions -----------------------------------------------------------------------------------------------------

def _decisions(case: Case, report: Report, draws: Resamples, published: Sequence[PublishedFigures],
               operating: Operating | None) -> tuple[Section, str, dict[str, Mapping]]:
    """The section, and for the console what was decided by last and the figures of that."""
    blocks, values = [], {}
    if case.activation == "softmax":
        kinds = {"highest score": np.full(len(case.class_names), np.nan)}
        text = "The class with the highest score is called."
    else:
        kinds = {"threshold 0.5": np.full(len(case.class_names), 0.5)}
        text = "A finding is called from its threshold on. "
        if operating is None:
            text += ("0.5 suits no rare finding: fit thresholds on a validation list with `--fit`, and they are shown "
                     "here too.")
        else:
            kinds["stored thresholds"] = np.array([operating.thresholds.get(n, np.nan) for n in case.class_names])
            text += f"The stored thresholds were fitted on {operating.fitted_on} by the rule {operating.rule}."
    blocks.append(text)
    for kind, thresholds in kinds.items():
        figures = _rates(case, draws, thresholds)
        accuracy = _accuracy(case, draws, thresholds)
        beside = {column.source: column.values["accuracy"] for column in published if "accuracy" in column.values}
        line = f"**{kind[0].upper() + kind[1:]}**: accuracy {accuracy}"
        line += "".join(f"; {source} {value:.3f}" for source, value in beside.items())
        blocks += [line + (" over all images and findings." if case.activation == "sigmoid" else "."),
                   _rates_table(case, thresholds, figures, published), *_undefined(figures)]
        values[kind] = {"accuracy": {**accuracy.to_json(), "published": beside}, **{
            name: {"threshold": float(thresholds[k]),
                   **{rate: by_class[name].to_json() for rate, by_class in figures.items()},
                   **dict(zip(("TP", "FP", "FN", "TN"), _outcomes(case, thresholds)[:, k].tolist()))}
            for k, name in enumerate(case.class_names)}}
    if report.confusion is not None:
        values["confusion"] = report.confusion.tolist()
        blocks.append(Picture("confusion", charts.confusion(report.confusion, case.class_names),
                              "Confusion matrix: images, and their share of the row (the true class).", charts.DPI))
    title = f"Decisions: {', '.join(rate.name for rate in rates.RATES)}"
    return Section("decisions", title, blocks, values), kind, figures


def _outcomes(case: Case, thresholds: np.ndarray) -> np.ndarray:
    """(4, K) counts; nan for a finding without a threshold."""
    counts = rates.count_outcomes(case.truth, case.called(thresholds)).astype(float)
    if case.activation == "sigmoid":
        counts[:, np.isnan(thresholds)] = np.nan
    return counts


def _rates(case: Case, draws: Resamples, thresholds: np.ndarray) -> dict[str, dict[str, Figure]]:
    """Every rate by its name, and of each class."""
    outcomes = np.concatenate(rates.split_outcomes(case.truth, case.called(thresholds)), axis=1)
    samples = rates.rates_of(draws.sums(outcomes).reshape(draws.count, 4, -1).swapaxes(0, 1))
    values = rates.rates_of(_outcomes(case, thresholds))
    return {rate: {name: _figure(values[rate][k], samples[rate][:, k]) for k, name in enumerate(case.class_names)}
            for rate in values}


def _figure(value: float, samples: np.ndarray) -> Figure:
    """A rate with its interval. One that is undefined, as without a threshold, has no interval either."""
    return Figure(value, interval(np.full_like(samples, np.nan) if np.isnan(value) else samples))


def _accuracy(case: Case, draws: Resamples, thresholds: np.ndarray) -> Figure:
    """Share of right classes (exclusive) or of right yes/no calls (independent findings that have a threshold)."""
    truth, called = case.truth, case.called(thresholds)
    if case.activation == "softmax":
        right = (truth & called).any(axis=1)
    else:
        known = ~np.isnan(thresholds)
        right = (truth == called)[:, known].mean(axis=1) if known.any() else np.full(len(truth), np.nan)
    hit, images = draws.sums(np.stack([right, np.ones(len(right))], axis=1)).T
    return Figure(right.mean(), interval(hit / images))


def _rates_table(case: Case, thresholds: np.ndarray, figures: Mapping, published: Sequence[PublishedFigures]) -> Table:
    """Counts and rates of each class, each rate beside the published columns that have it."""
    independent = case.activation == "sigmoid"
    header = ["Type", *(["Threshold"] if independent else []), "TP", "FP", "FN", "TN"]
    counts = _outcomes(case, thresholds)
    rows = [[name, *([f"{thresholds[k]:.4f}"] if independent else []), *map(_count, counts[:, k])]
            for k, name in enumerate(case.class_names)]
    for rate in rates.RATES:
        keys = {name: f"{rate.name}_{name}" for name in case.class_names}
        shown = [column for column in published if not column.values.keys().isdisjoint(keys.values())]
        header += [f"{rate.title} (95 %)", *(column.source for column in shown)]
        for row, (name, key) in zip(rows, keys.items()):
            row += [str(figures[rate.name][name]), *(_published(column, key) for column in shown)]
    return Table(header, rows)


def _published(column: PublishedFigures, key: str) -> str:
    """A published figure as a cell, empty where there is none."""
    return f"{column.values[key]:.3f}" if key in column.values else ""


def _undefined(figures: Mapping[str, Mapping[str, Figure]]) -> list[Note]:
    """A note that names every undefined rate and why it is, if there is one."""
    sentences = []
    for rate in rates.RATES:
        names = [name for name, figure in figures[rate.name].items() if np.isnan(figure.value)]
        if names:
            sentences.append(f"{rate.name} of {', '.join(names)} ({rate.undefined})")
    text = f"Undefined (0/0, or without a threshold) and shown as nan: {'; '.join(sentences)}."
    return [Note(text)] if sentences else []


# --- calibration ---------------------------------------------------------------------------------------------------

def _calibration_section(case: Case, report: Report, operating: Operating | None) -> Section:
    """Expected calibration error and Brier score of each class, before and after temperature scaling."""
    temperature = operating.temperature if operating else 1.0
    truth = case.truth
    kinds = {"as given": case.scores}
    if temperature != 1:
        kinds[f"temperature {temperature:.3f}"] = at_temperature(case.scores, temperature, case.activation)
    names = list(case.class_names)
    curves = {kind: [reliability(scores[:, k], truth[:, k]) for k in range(len(names))]
              for kind, scores in kinds.items()}
    brier = {kind: ((scores - truth) ** 2).mean(axis=0) for kind, scores in kinds.items()}
    titles = [f"{name}\nECE {curve.error:.3f}" for name, curve in zip(names, curves["as given"])]
    header = ["Type", "Share of positives", "Mean probability", *(f"ECE {kind}" for kind in kinds),
              *(f"Brier {kind}" for kind in kinds)]
    rows = [[name, f"{truth[:, k].mean():.3f}", f"{case.scores[:, k].mean():.3f}",
             *(f"{curves[kind][k].error:.3f}" for kind in kinds), *(f"{brier[kind][k]:.3f}" for kind in kinds)]
            for k, name in enumerate(names)]
    rows.append([MEAN, f"{truth.mean():.3f}", f"{case.scores.mean():.3f}",
                 *(f"{np.mean([curve.error for curve in curves[kind]]):.3f}" for kind in kinds),
                 *(f"{brier[kind].mean():.3f}" for kind in kinds)])
    values = {kind: {name: {"ECE": curves[kind][k].error, "Brier": float(brier[kind][k])}
                     for k, name in enumerate(names)} for kind in kinds}
    text = (f"Log loss {report.values['loss']:.4f}. The expected calibration error (ECE) is the mean distance between "
            "the probability given and the share of positives, over 15 bins of equal width (Guo et al. 2017). ")
    if case.activation == "softmax":
        top = {kind: reliability(scores.max(axis=1), scores.argmax(axis=1) == case.labels)
               for kind, scores in kinds.items()}
        text += "Of the class called it is " + ", ".join(f"{curve.error:.3f} {kind}" for kind, curve in top.items())
        text += ". "
        for kind, curve in top.items():
            curves[kind].append(curve)
            values[kind]["class called"] = {"ECE": curve.error}
        titles.append(f"class called\nECE {top['as given'].error:.3f}")
    if operating is None:
        text += "A temperature fitted on a validation list with `--fit` is shown here too."
    after = list(curves.values())[1] if temperature != 1 else None
    picture = Picture("reliability", charts.calibration(curves["as given"], titles, after),
                      "Reliability: on the dashed line a probability of 30 % comes true in 30 of 100 images. Bars: "
                      "95 % Wilson intervals of the share, image by image.", charts.DPI)
    return Section("calibration", "Calibration: what the probabilities are worth",
                   [text, Table(header, rows, (MEAN,)), picture], {"log_loss": report.values["loss"], **values})


# --- words ---------------------------------------------------------------------------------------------------------

def data_section(facts: Mapping[str, str], names: Sequence[str], case: Case, remarks: Sequence[str] = ()) -> Section:
    """The section that says what was judged.

    Args:
        facts: where it comes from, as the caller knows it.
        names: of the images.
        case: what is judged.
        remarks: what to heed, a sentence each.

    Returns:
        The section.
    """
    patients = len(set(case.patients))
    if patients == 1:
        remarks = [*remarks, "All images are of one patient: there is nothing to resample, and no figure has an "
                             "interval."]
    elif patients == len(names):
        remarks = [*remarks, "Every image counts as a patient of its own: where that is not so, the intervals are too "
                             "narrow."]
    counted = {"Images": len(names), "Patients": patients}
    facts = {**facts, "SHA-256 of the sorted names": hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()}
    rows = [*facts.items(), *((name, f"{count:,}") for name, count in counted.items()),
            ("Classes", ", ".join(case.class_names))]
    return Section("data", "What was judged", [Table((), rows), *map(Note, remarks)],
                   {**facts, **counted, "Classes": list(case.class_names), "Remarks": list(remarks)})


def _titles(names: Sequence[str], figures: Mapping[str, Figure]) -> list[str]:
    return [f"{name}\n{figures[name].value:.3f}" for name in names]


def _count(value) -> str:
    return value if isinstance(value, str) else "nan" if np.isnan(value) else f"{int(value):,}"


def _console(case: Case, areas: Mapping[str, Figure], precisions: Mapping[str, Figure], decided_by: str,
             decision_rates: Mapping[str, Mapping[str, Figure]], published: Sequence[PublishedFigures]) -> str:
    shown_rates = rates.on_console()
    shown = [column for column in published if "AUROC_avg" in column.values]
    table = PrettyTable(["Type", "Images", *(rate.console_heading for rate in shown_rates), "AUROC (95 %)",
                         *(column.source for column in shown), "AP (95 %)"], align="r")
    table.align["Type"] = "l"
    for k, name in enumerate((*case.class_names, MEAN)):
        images = "" if name == MEAN else int(case.truth[:, k].sum())
        figures = ("" if name == MEAN else f"{decision_rates[rate.name][name].value:.3f}" for rate in shown_rates)
        key = "AUROC_avg" if name == MEAN else f"AUROC_{name}"
        table.add_row([name, images, *figures, str(areas[name]), *(_published(column, key) for column in shown),
                       str(precisions[name])])
    *names, last = (rate.name for rate in shown_rates)
    listed = f"{', '.join(names)} and {last}" if names else last
    return (f"{table.get_string()}\n{listed[0].upper() + listed[1:]} by the {decided_by}; nan is 0/0; AP is average "
            "precision.")
