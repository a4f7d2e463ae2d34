"""What a training run is asked for."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxr.utils.distributed import world


@dataclass(frozen=True)
class Settings:
    """How to train. Name every value that is given: so many are not told apart by their places.

    Args:
        save_dir: folder of `best.pdparams`, `last.pdparams`, `history.csv`, `curves.png` and the checkpoint.
        epochs, batch_size: images at once in each process; the last batch of an epoch may be short.
        monitor: figure of `cxr.metrics.classification.Report.values` that the best checkpoint is chosen by, higher is
            better.
        patience: stop after so many epochs without a better one; None never stops early.
        max_steps: end after so many steps in all, for trying things out; None trains all epochs.
        seed: of the order of the images, of their augmentation, and of dropout.
        workers: threads that read images; None takes one for each core, 8 at most.
        accumulate: batches a step; the gradient is that of one batch of `accumulate * batch_size` images.
        save_every: minutes between checkpoints, 0 for one a step; None takes ten, or more where writing would
            otherwise take over 1 % of the time. There is one at the end of every epoch in any case.
        label_smoothing, class_weights, balanced_sampling: see `cxr.training.losses`; the latter two are "balanced" or
            off.
        amp: mixed precision: float16 where that is safe (O1), with loss scaling. On GPUs alone.
        visualdl: also write figures for VisualDL, into `visualdl` below `save_dir`.
        tables: print the table of all classes below the line of every epoch.
    """
    save_dir: Path
    epochs: int
    batch_size: int
    monitor: str
    patience: int | None = None
    max_steps: int | None = None
    seed: int = 0
    workers: int | None = None
    accumulate: int = 1
    save_every: float | None = None
    label_smoothing: float = 0.0
    class_weights: bool = False
    balanced_sampling: bool = False
    amp: bool = False
    visualdl: bool = False
    tables: bool = True

    @property
    def step_size(self) -> int:
        """Images a step, over all processes."""
        return self.batch_size * self.accumulate * world()

    def steps_per_epoch(self, images: int) -> int:
        return -(-images // self.step_size)
