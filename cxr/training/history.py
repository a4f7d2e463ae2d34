"""What happened in a training run, as a table, as curves, and for VisualDL."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cxr.errors import InputError
from cxr.utils.files import write_csv
from cxr.visual.charts import curves
from cxr.visual.image_files import save_picture


@dataclass
class History:
    """One row an epoch, and the traces of loss and accuracy within the epochs. `best` is the row of `best.pdparams`."""
    rows: list[dict] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    best: dict | None = None

    def save(self, folder: Path, monitor: str) -> None:
        """Write `history.csv` and the four curves of the COVID notebook as `curves.png`."""
        write_csv(folder / "history.csv", list(self.rows[0]), [list(row.values()) for row in self.rows])
        epochs = [row["epoch"] for row in self.rows]
        series = {
            "train loss": (self.steps, self.losses),
            "train acc": (self.steps, self.accuracies),
            "eval loss": (epochs, [row["val_loss"] for row in self.rows]),
            "eval acc" if monitor == "accuracy" else f"eval {monitor}":
                (epochs, [row[f"val_{monitor}"] for row in self.rows]),
        }
        save_picture(folder / "curves.png", curves(series, ("iter", "iter", "epoch", "epoch")))


class VisualLog:
    """Figures for VisualDL (`visualdl --logdir FOLDER`), an optional package.

    Raises:
        InputError: it is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from visualdl import LogWriter
        except ImportError:
            raise InputError("--visualdl needs the package visualdl: run `pip install visualdl`.") from None
        self._writer = LogWriter(logdir=str(folder))

    def add(self, group: str, figures: dict[str, float], step: int) -> None:
        """Add a point to the curve `GROUP/NAME` of every figure."""
        for name, value in figures.items():
            self._writer.add_scalar(tag=f"{group}/{name}", step=step, value=value)

    def close(self) -> None:
        """Write what is still to be written."""
        self._writer.close()
