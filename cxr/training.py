"""The training loop that all recipes share."""
from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import paddle
from paddle.nn import functional as F

from cxr.errors import InputError
from cxr.files import write_csv
from cxr.inference import Predictor, predict
from cxr.metrics import Report, evaluate, headline
from cxr.parallel import batches, default_workers
from cxr.pictures import curves, save_picture
from cxr.progress import progress
from cxr.weights import save_weights

_TRACE_EVERY = 10                                # steps between two points of the training curves, as published


@dataclass(frozen=True)
class Settings:
    """How to train.

    Args:
        save_dir: folder of `best.pdparams`, `last.pdparams`, `history.csv` and `curves.png`.
        epochs, batch_size: the last batch of an epoch may be short.
        monitor: figure of `cxr.metrics.Report.values` that the best checkpoint is chosen by, higher is better.
        patience: stop after so many epochs without a better one; None never stops early.
        max_steps: end after so many batches in all, for trying things out; None trains all epochs.
        seed: of the order of the images and of their augmentation.
        workers: threads that read images; None takes one for each core, 8 at most.
    """
    save_dir: Path
    epochs: int
    batch_size: int
    monitor: str
    patience: int | None = None
    max_steps: int | None = None
    seed: int = 0
    workers: int | None = None


@dataclass
class History:
    """What happened: one row an epoch, and the traces of loss and accuracy within the epochs."""
    rows: list[dict] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    best: dict | None = None

    def save(self, folder: Path, monitor: str) -> None:
        """Write `history.csv` and the four curves of the COVID notebook as `curves.png`."""
        if not self.rows:
            return
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


def loss_and_accuracy(logits, labels, activation: str):
    """Mean loss of a batch (a scalar tensor) and its accuracy (a float).

    `sigmoid`: binary cross entropy over labels (B, K) of 0/1; `softmax`: cross entropy over indices (B, 1). Both
    from logits, which stays exact where the probability rounds to 0 or 1.
    """
    if activation == "sigmoid":
        loss = F.binary_cross_entropy_with_logits(logits, labels)
        right = (logits > 0).astype("float32") == labels
    else:
        loss = F.cross_entropy(logits, labels)
        right = logits.argmax(axis=1) == labels.flatten()
    return loss, float(right.astype("float32").mean())


def fit(model, train_set, val_set, optimizer, scheduler, settings: Settings, meta: dict) -> History:
    """Train `model`, validate after every epoch, keep the best and the last weights.

    Args:
        model: has `features`, `logits` and `activation`.
        train_set, val_set: see `cxr.data.XrayDataset`.
        optimizer, scheduler: from Paddle; the scheduler is stepped once a batch.
        meta: stored in every checkpoint (`cxr.recipe.metadata`).

    Raises `InputError` when the loss is no longer a number; what was saved before stays.
    """
    folder = Path(settings.save_dir)
    workers = default_workers() if settings.workers is None else settings.workers
    steps_per_epoch = -(-len(train_set) // settings.batch_size)
    history, step = History(), 0
    for epoch in range(1, settings.epochs + 1):
        began = time.monotonic()
        train_set.epoch = epoch
        order = np.random.default_rng([settings.seed, epoch]).permutation(len(train_set)).tolist()
        model.train()
        loss_sum = accuracy_sum = seen = 0.0
        rate = optimizer.get_lr()
        with progress(batches(train_set, order, settings.batch_size, workers), total=steps_per_epoch,
                      desc=f"epoch {epoch}/{settings.epochs}", unit="batch") as bar:
            for images, labels in bar:
                logits = model.logits(model.features(paddle.to_tensor(images)))
                loss, accuracy = loss_and_accuracy(logits, paddle.to_tensor(labels), model.activation)
                value = float(loss)
                if not np.isfinite(value):
                    raise InputError(f"the training loss became {value} in epoch {epoch}: lower --learning_rate; "
                                     f"what was saved in {folder} before stays.")
                loss.backward()
                rate = optimizer.get_lr()
                optimizer.step()
                optimizer.clear_grad()
                scheduler.step()
                if step % _TRACE_EVERY == 0:
                    history.steps.append(step)
                    history.losses.append(value)
                    history.accuracies.append(accuracy)
                    bar.set_postfix(loss=f"{value:.4f}", acc=f"{accuracy:.3f}", lr=f"{rate:.2e}", refresh=False)
                loss_sum += value * len(images)
                accuracy_sum += accuracy * len(images)
                seen += len(images)
                step += 1
                if settings.max_steps and step >= settings.max_steps:
                    break
        report = validate(model, val_set, settings.batch_size, workers)
        row = {"epoch": epoch, "learning_rate": rate, "train_loss": loss_sum / seen,
               "train_accuracy": accuracy_sum / seen,
               **{f"val_{name}": report.values[name] for name in ("loss", "accuracy", "AUROC_avg", settings.monitor)},
               "seconds": round(time.monotonic() - began, 1)}
        history.rows.append(row)
        score = report.values[settings.monitor]
        # Where the figure is undefined (no positives in the validation set) the latest epoch counts as the best.
        better = history.best is None or not score <= history.best[f"val_{settings.monitor}"]
        told = {**meta, "training": row}
        save_weights(model, folder / "last.pdparams", told)
        if better:
            history.best = row
            save_weights(model, folder / "best.pdparams", told)
        history.save(folder, settings.monitor)
        print(f"Epoch {epoch}/{settings.epochs}: train loss {row['train_loss']:.4f}, train accuracy "
              f"{row['train_accuracy']:.4f}; val {headline(report.values)}; {row['seconds']:.0f} s"
              f"{f' (best {settings.monitor} so far)' if better else ''}\n{report.table}", flush=True)
        if settings.max_steps and step >= settings.max_steps:
            break
        if settings.patience and epoch - history.best["epoch"] >= settings.patience:
            print(f"No better {settings.monitor} for {settings.patience} epochs: stopped early.")
            break
    return history


def validate(model, dataset, batch_size: int, workers: int) -> Report:
    """Evaluate `model` on a data set; leaves it in eval mode. Raises `InputError` where scores are not numbers."""
    logits = predict(Predictor(model, "dygraph"), dataset, batch_size, workers, desc="validate")
    if not np.isfinite(logits).all():
        raise InputError("the weights diverged, the model's scores are no numbers: lower --learning_rate.")
    return evaluate(logits, dataset.labels, dataset.class_names, model.activation)
