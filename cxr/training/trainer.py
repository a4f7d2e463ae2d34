"""The training loop that all recipes share."""
from __future__ import annotations

import math
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np

from cxr.device import ensure
from cxr.errors import InputError
from cxr.inference.predictor import Predictor, predict
from cxr.metrics.classification import Report, evaluate, headline
from cxr.models.transfer import is_frozen, train_mode
from cxr.training import resume
from cxr.training.frozen_features import Head, embed
from cxr.training.history import History, VisualLog
from cxr.training.interrupts import Interrupts
from cxr.training.losses import Loss, balanced_weights, epoch_order, image_weights
from cxr.training.resume import Position, ResumeWriter, identity_of
from cxr.training.settings import Settings
from cxr.training.step import Stepper, StepResult
from cxr.utils.distributed import gather, rank, same_start, share
from cxr.utils.parallel import batches, default_workers
from cxr.utils.progress import progress
from cxr.weights import load_weights, save_weights

_TRACE_EVERY = 10                                # steps between two points of the training curves, as published


def fit(model, train_set, val_set, optimizer, scheduler, settings: Settings, meta: dict,
        saved: resume.Saved | None = None, identity: Mapping | None = None) -> History:
    """Train `model`, validate after every epoch, keep the best and the last weights; the model ends with the best.

    A backbone that is frozen (`cxr.models.transfer.freeze_backbone`) runs once over all images whose transform is not
    random. Ctrl-C and SIGTERM write a checkpoint and raise `KeyboardInterrupt`.

    Args:
        model: has `features`, `logits` and `activation`, and `classifier` if it is frozen.
        train_set, val_set: see `cxr.data.dataset.XrayDataset`.
        optimizer, scheduler: from Paddle; the scheduler is stepped once a step.
        meta: stored in every checkpoint (`cxr.models.restore.metadata`).
        saved: what `cxr.training.resume.claim` gave, to go on from; the weights then end as if never interrupted.
        identity: what else makes a run the same one, for example its flags; `saved` must agree with it.

    Returns:
        What happened, an epoch a row.

    Raises:
        InputError: the loss is no longer a number, a figure is one that cannot be, the GPU computes wrong
            (`cxr.device`), or the disk is full; what was saved before stays.
    """
    ensure()
    trainer = Trainer(model, train_set, val_set, optimizer, scheduler, settings, meta=meta, flags=identity or {})
    if saved:
        trainer.restore(saved)
    return trainer.run()


class Trainer:
    """The loop over epochs: train, validate, keep the best and the last weights, stop early.

    `Stepper` makes the steps, `ResumeWriter` writes what is needed to go on. Args are those of `fit`.

    Attributes:
        position: where the run stands.
        history: what has happened in it.
        stepper: makes the steps; its `network` is what the training images go through.
        validated: what the validation images go through: the model, or its `Head` where they are features already.
        sampling: probability of each training image to be drawn, or None where an epoch shows each once.
        writer: of the resume state.
        interrupts: Ctrl-C and SIGTERM; `at_once` wherever stopping at once loses nothing.
    """

    def __init__(self, model, train_set, val_set, optimizer, scheduler, settings: Settings, *, meta: Mapping,
                 flags: Mapping):
        self.model, self.train_set, self.val_set = model, train_set, val_set
        self.settings, self.meta = settings, meta
        self.folder = Path(settings.save_dir)
        self.workers = default_workers() if settings.workers is None else settings.workers
        self.steps = settings.steps_per_epoch(len(train_set))
        self.position, self.history = Position(), History()
        weights = (balanced_weights(train_set.labels, len(train_set.class_names), model.activation)
                   if settings.class_weights else None)
        self.stepper = Stepper(model, optimizer, scheduler, settings,
                               Loss(model.activation, settings.label_smoothing, weights))
        self.validated = model
        self.sampling = image_weights(train_set.labels, model.activation) if settings.balanced_sampling else None
        self.writer = ResumeWriter(self.folder, identity_of(flags, train_set, val_set), settings.save_every,
                                   model=model, optimizer=optimizer, scheduler=scheduler, scaler=self.stepper.scaler)
        self.interrupts = Interrupts()
        self.log: VisualLog | None = None

    def restore(self, saved: resume.Saved) -> None:
        """Stand where the run stood when `saved` was written."""
        self.position, self.history = self.writer.restore(saved)
        # Of an epoch that --max_steps cut short, which is now measured at its end.
        self.history.rows = [row for row in self.history.rows if row["epoch"] < self.position.epoch]

    def run(self) -> History:
        """Train to the end; see `fit` for what it raises."""
        with self.interrupts:
            self.interrupts.at_once = True
            if len(set(gather(self.position.step))) > 1:
                raise InputError(f"the processes do not read the same checkpoint: give all nodes a {self.folder} that "
                                 "is the same folder.")
            ended = self._ended()
            if ended:
                print(f"The run in {self.folder} is complete: {ended}.")
                return self._finish()
            self._begin()
            while not ended:
                self._train_epoch()
                began = time.monotonic()
                try:
                    report = validate(self.validated, self.val_set, self.settings.batch_size, self.workers)
                except KeyboardInterrupt:
                    self._stop()
                self._close_epoch(report, self.position.seconds + time.monotonic() - began)
                ended = self._ended()
        print(f"Done: {ended}.")
        (self.folder / resume.PREVIOUS).unlink(missing_ok=True)
        return self._finish()

    def _begin(self) -> None:
        """Say where the run goes on, or give all processes the same weights and write the first resume state."""
        position = self.position
        if position.step:
            print(f"Going on after {position.done} of {self.steps} steps of epoch {position.epoch}.", flush=True)
        else:
            same_start(list(self.model.state_dict().values()))
            self._save()                         # a disk too small says so now and not after hours
        if self.settings.visualdl and rank() == 0:
            self.log = VisualLog(self.folder / "visualdl")
        self._embed()

    def _ended(self) -> str | None:
        """Why there is nothing left to train, or None."""
        settings, rows = self.settings, self.history.rows
        if self.position.epoch > settings.epochs:
            return f"it has trained for {settings.epochs} epochs"
        if settings.max_steps and self.position.step >= settings.max_steps:
            return f"it has made {self.position.step} steps"
        if settings.patience and rows and rows[-1]["epoch"] - self.history.best["epoch"] >= settings.patience:
            return f"no better {settings.monitor} for {settings.patience} epochs, stopped early"
        return None

    def _finish(self) -> History:
        if self.log:
            self.log.close()
        if rank() == 0 and (self.folder / "best.pdparams").exists():
            load_weights(self.model, self.folder / "best.pdparams")
        same_start(list(self.model.state_dict().values()))
        return self.history

    def _embed(self) -> None:
        """Where the backbone is frozen, go on with its output in place of all images that never change."""
        if not is_frozen(self.model):
            return
        self.validated = Head(self.model)
        self.val_set = embed(self.model, self.val_set, self.settings.batch_size, self.workers, "validation features")
        if not getattr(self.train_set.transform, "takes_rng", False):
            self.stepper.network = self.validated
            self.train_set = embed(self.model, self.train_set, self.settings.batch_size, self.workers,
                                   "training features")

    def _train_epoch(self) -> None:
        """Make the steps of the epoch that are still to be made, at most `max_steps` in all."""
        settings, position = self.settings, self.position
        began = time.monotonic() - position.seconds
        groups = self._images_of_steps()
        shares = [share(group) for group in groups]
        self.train_set.epoch = position.epoch
        train_mode(self.model)
        stream = batches(self.train_set, [index for part in shares for index in part.tolist()], settings.batch_size,
                         self.workers)
        self.interrupts.at_once = False
        with progress(None, total=self.steps, desc=f"epoch {position.epoch}/{settings.epochs}", unit="step") as bar:
            bar.initial = bar.n = position.done
            for group, part in zip(groups, shares):
                result = self.stepper.step(islice(stream, -(-len(part) // settings.batch_size)), len(group), position,
                                           lambda: self.interrupts.pending)
                self.writer.stepped()
                position.loss_sum += result.loss * len(group)
                position.accuracy_sum += result.accuracy * len(group)
                position.seen += len(group)
                if position.step % _TRACE_EVERY == 0:
                    self._trace(result)
                    bar.set_postfix(loss=f"{result.loss:.4f}", acc=f"{result.accuracy:.3f}",
                                    lr=f"{position.rate:.2e}", refresh=False)
                position.step += 1
                position.done += 1
                position.seconds = time.monotonic() - began
                bar.update()
                if result.stop:
                    self._stop()
                if self.writer.due():
                    self._save()
        self.interrupts.at_once = True
        if self.interrupts.pending:
            self._stop()

    def _images_of_steps(self) -> list[np.ndarray]:
        """Indices of the images of every step that this epoch is still to make, over all processes."""
        settings, position = self.settings, self.position
        order = epoch_order(len(self.train_set), settings.seed, position.epoch, self.sampling)
        size, end = settings.step_size, self.steps
        if settings.max_steps:
            end = min(end, position.done + settings.max_steps - position.step)
        return [order[step * size:(step + 1) * size] for step in range(position.done, end)]

    def _trace(self, result: StepResult) -> None:
        """Add a point to the training curves."""
        step = self.position.step
        self.history.steps.append(step)
        self.history.losses.append(result.loss)
        self.history.accuracies.append(result.accuracy)
        if self.log:
            self.log.add("train", {"loss": result.loss, "accuracy": result.accuracy,
                                   "learning_rate": self.position.rate}, step)

    def _close_epoch(self, report: Report, seconds: float) -> None:
        """Keep weights and figures of the epoch, which took `seconds`, and go on to the next."""
        settings, position, history = self.settings, self.position, self.history
        figures = {"epoch": position.epoch, "learning_rate": position.rate,
                   "train_loss": position.loss_sum / position.seen,
                   "train_accuracy": position.accuracy_sum / position.seen,
                   **{f"val_{name}": report.values[name]
                      for name in ("loss", "accuracy", "AUROC_avg", settings.monitor)}}
        row = {**figures, "seconds": round(seconds, 1)}
        # Where the figure is undefined (no positives in the validation set) the latest epoch counts as the best.
        better = (history.best is None
                  or not report.values[settings.monitor] <= history.best[f"val_{settings.monitor}"])
        self.interrupts.at_once = False          # what follows belongs together
        history.rows.append(row)
        if better:
            history.best = row
        self._keep_weights(figures, better)
        if self.log:
            self.log.add("val", {name: row[f"val_{name}"] for name in ("loss", "accuracy", "AUROC_avg")}, row["epoch"])
        print(f"Epoch {position.epoch}/{settings.epochs}: train loss {row['train_loss']:.4f}, train accuracy "
              f"{row['train_accuracy']:.4f}; val {headline(report.values)}; {row['seconds']:.0f} s"
              f"{f' (best {settings.monitor} so far)' if better else ''}"
              + (f"\n{report.table}" if settings.tables else ""), flush=True)
        if position.done == self.steps:
            self.position = Position(epoch=position.epoch + 1, step=position.step, rate=position.rate)
        self._save()
        self.interrupts.at_once = True
        if self.interrupts.pending:
            raise KeyboardInterrupt(str(self.position))

    def _keep_weights(self, figures: Mapping, better: bool) -> None:
        """Write the weights of the epoch, as the best ones too if they are, and the history."""
        if rank() > 0:
            return
        # Without the time it took, so that a run taken up again ends with the same file.
        meta = {**self.meta, "training": figures}
        with self.writer.explaining_a_full_disk():
            save_weights(self.model, self.folder / "last.pdparams", meta)
            if better:
                save_weights(self.model, self.folder / "best.pdparams", meta)
            self.history.save(self.folder, self.settings.monitor)

    def _save(self) -> None:
        self.writer.save(self.position, self.history)

    def _stop(self) -> NoReturn:
        self.writer.stop(self.position, self.history)


def validate(model, dataset, batch_size: int, workers: int) -> Report:
    """Evaluate `model` on a data set, and leave it in eval mode.

    Raises:
        InputError: the scores or the loss are not numbers.
    """
    logits = predict(Predictor(model, "dygraph"), dataset, batch_size, workers, desc="validate")
    if not np.isfinite(logits).all():
        raise InputError("the weights diverged, the model's scores are no numbers: lower --learning_rate.")
    report = evaluate(logits, dataset.labels, dataset.class_names, model.activation)
    if not math.isfinite(report.values["loss"]):
        raise InputError(f"the validation loss is {report.values['loss']}: lower --learning_rate.")
    return report
