"""Curves and tables as pictures: a small panel for each class, all on the same axes, so that classes can be compared.

Pictures are arrays (H, W, 3) uint8 RGB; `cxr.visual.image_files` writes them.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cxr.metrics.calibration import Reliability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib and scikit-learn are imported where they are used: whoever draws no chart does not wait for them.

_MAIN, _OTHER, _GUIDE = "#1d5f9e", ("#c2571a", "#3d8b47", "#7a4fa3"), "#9a9a9a"
DPI = 150                                        # sharp on paper at the width of a page
_POINTS = 500                                    # of a curve; more cannot be seen in a panel
_WIDTH = 10.5                                    # inches of a row of panels


def roc(scores: np.ndarray, truth: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """ROC curve of each class.

    Args:
        scores: (N, K), the higher the more likely.
        truth: (N, K) bool.
        titles: of the K panels.

    Returns:
        The picture.
    """
    from sklearn.metrics import roc_curve

    def draw(axes: Axes, k: int) -> None:
        axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=0.8, linestyle="--")
        if 0 < truth[:, k].sum() < len(truth):
            false_alarms, found, _ = roc_curve(truth[:, k], scores[:, k])
            axes.plot(*thinned(false_alarms, found), color=_MAIN, linewidth=1.4)
        else:
            _nothing(axes)
    return _panels(draw, titles, "1 - specificity", "sensitivity")


def precision_recall(scores: np.ndarray, truth: np.ndarray, titles: Sequence[str]) -> np.ndarray:
    """Precision-recall steps of each class, with a dashed line at its share of positives, which is chance.

    Args:
        scores: (N, K), the higher the more likely.
        truth: (N, K) bool.
        titles: of the K panels.

    Returns:
        The picture.
    """
    from sklearn.metrics import precision_recall_curve

    def draw(axes: Axes, k: int) -> None:
        axes.axhline(truth[:, k].mean(), color=_GUIDE, linewidth=0.8, linestyle="--")
        if truth[:, k].any():
            precision, found, _ = precision_recall_curve(truth[:, k], scores[:, k])
            axes.step(*thinned(found, precision), where="pre", color=_MAIN, linewidth=1.2)
        else:
            _nothing(axes)
    return _panels(draw, titles, "recall", "precision")


def calibration(curves: Sequence[Reliability], titles: Sequence[str],
                after: Sequence[Reliability] | None = None) -> np.ndarray:
    """Reliability of each class: share of positives over mean probability, with 95 % Wilson intervals of the share.

    Args:
        curves: of the K classes.
        titles: of the K panels.
        after: the same with temperature, in a second colour; None: not drawn.

    Returns:
        The picture.
    """
    from matplotlib.colors import to_rgba

    def draw(axes: Axes, k: int) -> None:
        axes.plot([0, 1], [0, 1], color=_GUIDE, linewidth=0.8, linestyle="--")
        for curve, colour, label in ((curves[k], _MAIN, "as given"),
                                     *(((after[k], _OTHER[0], "with temperature"),) if after else ())):
            low, high = wilson(curve.happened, curve.count)
            axes.errorbar(curve.said, curve.happened, (curve.happened - low, high - curve.happened), color=colour,
                          ecolor=to_rgba(colour, 0.45), elinewidth=0.8, marker="o", markersize=2.5, linewidth=1,
                          label=label)
        if after and k == 0:
            axes.legend(fontsize=6, loc="upper left", frameon=False)
    return _panels(draw, titles, "probability given", "share of positives")


def confusion(counts: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Confusion matrix, coloured by the share of its row, with count and share in every cell.

    Args:
        counts: (K, K), row = truth, column = prediction.
        class_names: K names.

    Returns:
        The picture.
    """
    from matplotlib.figure import Figure

    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    side = max(3.2, 0.85 * len(counts) + 1.6)
    figure = Figure(figsize=(side + 0.8, side), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        percentage = f"{100 * share[row, column]:.1f} %" if total[row, 0] else "0/0"
        axes.text(column, row, f"{counts[row, column]:,}\n{percentage}", ha="center", va="center", fontsize=8,
                  color="white" if share[row, column] > 0.55 else "#222222")
    axes.set_xticks(range(len(class_names)), class_names, rotation=30, ha="right", fontsize=8)
    axes.set_yticks(range(len(class_names)), class_names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    bar = figure.colorbar(image, shrink=0.8)
    bar.set_label("share of the row", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return drawn(figure)


def intervals(figures: Mapping[str, tuple[float, float, float]], xlabel: str,
              others: Mapping[str, Mapping[str, float]] | None = None, chance: float | None = None) -> np.ndarray:
    """A line for each class: its figure as a dot, its interval as a bar, and figures of others as hollow marks.

    Args:
        figures: class -> (figure, low, high); nan is not drawn.
        xlabel: what the figure is.
        others: title -> class -> figure.
        chance: where a dashed line stands; None: nowhere.

    Returns:
        The picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1 + 0.26 * len(figures)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    rows = np.arange(len(figures))
    point, low, high = np.array(list(figures.values())).T
    if chance is not None:
        axes.axvline(chance, color=_GUIDE, linewidth=0.9, linestyle="--")
    axes.hlines(rows, low, high, color=_MAIN, linewidth=2.2, alpha=0.55)
    axes.plot(point, rows, "o", color=_MAIN, markersize=5, label="this evaluation, 95 % interval")
    for (title, values), colour, marker in zip((others or {}).items(), _OTHER, "Ds^"):
        axes.plot([values.get(name, np.nan) for name in figures], rows, marker, color=colour, markersize=5,
                  markerfacecolor="none", label=title)
    axes.set_yticks(rows, list(figures), fontsize=8)
    axes.set_ylim(len(figures) - 0.4, -0.6)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(xlabel, fontsize=9)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_axisbelow(True)
    if others:
        axes.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1), ncol=len(others) + 1, frameon=False)
    return drawn(figure)


def wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a share (Wilson 1927), inside 0-1 also for shares of 0 and 1.

    Args:
        share: of successes, 0-1, any shape.
        count: of trials, the same shape.

    Returns:
        The lower and the upper ends.
    """
    z = 1.959963984540054
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return np.minimum(middle - half, share), np.maximum(middle + half, share)


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve (N,), (N,) with at most some 500 points: spread evenly along its length, with both ends."""
    if len(x) <= _POINTS:
        return x, y
    length = np.concatenate([[0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _POINTS)).clip(0, len(x) - 1))
    kept = np.union1d(kept, [0, len(x) - 1])
    return x[kept], y[kept]


def _panels(draw: Callable[[Axes, int], None], titles: Sequence[str], xlabel: str, ylabel: str) -> np.ndarray:
    """Small panels, at most five in a row, `draw(axes, index)` in each; axes 0-1, labels only at the rim."""
    from matplotlib.figure import Figure

    columns = 4 if 5 < len(titles) < 9 else min(len(titles), 5)
    rows = -(-len(titles) // columns)
    width = min(_WIDTH / columns, 2.6)
    figure = Figure(figsize=(width * columns, (width + 0.15) * rows), dpi=DPI, layout="constrained")
    for place, title in enumerate(titles):
        axes = figure.add_subplot(rows, columns, place + 1)
        draw(axes, place)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xticklabels(("0", "0.5", "1") if place + columns >= len(titles) else ())
        axes.set_yticklabels(("0", "0.5", "1") if place % columns == 0 else ())
        axes.set_title(title, fontsize=8)
        axes.tick_params(labelsize=7, length=2)
        axes.grid(True, color="#e4e4e4", linewidth=0.6)
        axes.set_axisbelow(True)
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel(ylabel, fontsize=9)
    return drawn(figure)


def _nothing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "undefined:\none kind of image only", ha="center", va="center", fontsize=6.5, color="#555555",
              backgroundcolor="white")


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]], xlabels: Sequence[str]) -> np.ndarray:
    """Training curves side by side, each in a panel.

    Args:
        series: title -> (x values, y values); the last word of a title names the y axis.
        xlabels: of the panels.

    Returns:
        The picture.
    """
    from matplotlib.figure import Figure

    columns = min(2, len(series))
    rows = -(-len(series) // columns)
    figure = Figure(figsize=(6 * columns, 4 * rows), dpi=100, layout="constrained")
    for place, ((title, (x, y)), xlabel) in enumerate(zip(series.items(), xlabels), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.plot(x, y, color="red", marker="." if len(x) < 30 else None)
        axes.set_title(title, fontsize="x-large")
        axes.set_xlabel(xlabel, fontsize="large")
        axes.set_ylabel(title.split()[-1], fontsize="large")
        axes.grid(True)
    return drawn(figure)


def drawn(figure: Figure) -> np.ndarray:
    """A Matplotlib figure as a picture, (H, W, 3) uint8 RGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)               # no pyplot: no global state, works without a display
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
