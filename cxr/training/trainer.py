"""The training loop that all recipes share."""
from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import paddle

from cxr.device import ensure
from cxr.device.guards import check_loss, check_share
from cxr.errors import InputError
from cxr.inference.predictor import Predictor, predict
from cxr.metrics.classification import Report, evaluate, headline
from cxr.models.transfer import is_frozen, running_statistics, train_mode, trainable
from cxr.training import resume
from cxr.training.frozen_features import Head, embed
from cxr.training.history import History, VisualLog
from cxr.training.interrupts import Interrupts
from cxr.training.losses import Loss, balanced_weights, epoch_order, hits, image_weights
from cxr.training.settings import Settings
from cxr.utils.distributed import gather, rank, reduce_step, same_start, share, world
from cxr.utils.parallel import batches, default_workers
from cxr.utils.progress import progress
from cxr.weights import load_weights, save_weights

_TRACE_EVERY = 10                                # steps between two points of the training curves, as published
_SAVE_EVERY = 10.0                               # minutes
_SHARE = 0.01                                    # of the time that checkpoints may take


@dataclass
class _Position:
    """Where a run stands: `done` steps of epoch `epoch`, `step` in all, and the sums of the epoch so far."""
    epoch: int = 1
    done: int = 0
    step: int = 0
    rate: float = 0.0
    loss_sum: float = 0.0
    accuracy_sum: float = 0.0
    seen: int = 0
    seconds: float = 0.0


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

    Raises `InputError` when the loss is no longer a number, a figure is one that cannot be, the GPU computes wrong
    (`cxr.device`), or the disk is full; what was saved before stays.
    """
    ensure()
    trainer = _Trainer(model, train_set, val_set, optimizer, scheduler, settings, meta, identity or {})
    if saved:
        trainer.restore(saved)
    return trainer.run()


class _Trainer:
    def __init__(self, model, train_set, val_set, optimizer, scheduler, settings, meta, identity):
        self.model, self.train_set, self.val_set = model, train_set, val_set
        self.optimizer, self.scheduler, self.settings, self.meta = optimizer, scheduler, settings, meta
        self.folder = Path(settings.save_dir)
        self.workers = default_workers() if settings.workers is None else settings.workers
        self.steps = settings.steps_per_epoch(len(train_set))
        self.at, self.history = _Position(), History()
        self.trained = self.judged = model
        self.parameters = trainable(model)
        # Paddle casts on GPUs alone, and its scaler would only warn elsewhere.
        if settings.amp and paddle.get_device() == "cpu":
            print("Note: mixed precision needs a GPU; on the CPU training goes on in float32.")
        self.amp = settings.amp and paddle.get_device() != "cpu"
        self.scaler = paddle.amp.GradScaler(enable=self.amp)
        weights = (balanced_weights(train_set.labels, len(train_set.class_names), model.activation)
                   if settings.class_weights else None)
        self.loss = Loss(model.activation, settings.label_smoothing, weights)
        self.chances = image_weights(train_set.labels, model.activation) if settings.balanced_sampling else None
        self.identity = json.loads(json.dumps({
            **identity, "processes": world(), "the training images": _digest(train_set),
            "the validation images": _digest(val_set), "classes": list(train_set.class_names)}))
        if any(other != self.identity for other in gather(self.identity)):
            raise InputError("the processes were not started with the same flags and images: give all nodes the same.")
        self.saved_at, self.cost = time.monotonic(), 0.0
        self.held: dict = {}
        self.log = None

    def restore(self, saved: resume.Saved) -> None:
        resume.check_same(saved.facts["identity"], self.identity, self.folder)
        self.held = resume.restore(saved, self.model, self.optimizer, saved.facts["scheduler"], self.folder)
        if self.amp:
            self.scaler.load_state_dict(saved.facts["scaler"])
        self.at, self.history = _Position(**saved.facts["position"]), History(**saved.facts["history"])
        # Of an epoch that --max_steps cut short, which is now measured at its end.
        self.history.rows = [row for row in self.history.rows if row["epoch"] < self.at.epoch]

    def run(self) -> History:
        with Interrupts() as self.interrupts:
            self.interrupts.at_once = True
            if len(set(gather(self.at.step))) > 1:
                raise InputError(f"the processes do not read the same checkpoint: give all nodes a {self.folder} that "
                                 "is the same folder.")
            ended = self._ended()
            if ended:
                print(f"The run in {self.folder} is complete: {ended}.")
                return self._finish()
            if self.at.step:
                print(f"Going on after {self.at.done} of {self.steps} steps of epoch {self.at.epoch}.", flush=True)
            else:
                same_start(list(self.model.state_dict().values()))
                self._save()                     # a disk too small says so now and not after hours
            if self.settings.visualdl and rank() == 0:
                self.log = VisualLog(self.folder / "visualdl")
            self._embed()
            while not ended:
                self._train_epoch()
                began = time.monotonic()
                try:
                    report = validate(self.judged, self.val_set, self.settings.batch_size, self.workers)
                except KeyboardInterrupt:
                    self._stop()
                self._close_epoch(report, self.at.seconds + time.monotonic() - began)
                ended = self._ended()
        print(f"Done: {ended}.")
        (self.folder / resume.PREVIOUS).unlink(missing_ok=True)
        return self._finish()

    def _ended(self) -> str | None:
        """Why there is nothing left to train, or None."""
        settings, rows = self.settings, self.history.rows
        if self.at.epoch > settings.epochs:
            return f"it has trained for {settings.epochs} epochs"
        if settings.max_steps and self.at.step >= settings.max_steps:
            return f"it has made {self.at.step} steps"
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
        self.judged = Head(self.model)
        self.val_set = embed(self.model, self.val_set, self.settings.batch_size, self.workers, "validation features")
        if not getattr(self.train_set.transform, "takes_rng", False):
            self.trained = self.judged
            self.train_set = embed(self.model, self.train_set, self.settings.batch_size, self.workers,
                                   "training features")

    def _train_epoch(self) -> None:
        """Make the steps of the epoch that are still to be made, at most `max_steps` in all."""
        settings, at = self.settings, self.at
        began = time.monotonic() - at.seconds
        order = epoch_order(len(self.train_set), settings.seed, at.epoch, self.chances)
        size = settings.step_size
        end = self.steps if not settings.max_steps else min(self.steps, at.done + settings.max_steps - at.step)
        groups = [order[step * size:(step + 1) * size] for step in range(at.done, end)]
        own = [share(group) for group in groups]
        self.train_set.epoch = at.epoch
        train_mode(self.model)
        stream = batches(self.train_set, [index for part in own for index in part.tolist()], settings.batch_size,
                         self.workers)
        self.interrupts.at_once = False
        with progress(None, total=self.steps, desc=f"epoch {at.epoch}/{settings.epochs}", unit="step") as bar:
            bar.initial = bar.n = at.done
            for group, part in zip(groups, own):
                loss, accuracy, stop = self._step(islice(stream, -(-len(part) // settings.batch_size)), len(group))
                at.loss_sum += loss * len(group)
                at.accuracy_sum += accuracy * len(group)
                at.seen += len(group)
                if at.step % _TRACE_EVERY == 0:
                    self._trace(loss, accuracy)
                    bar.set_postfix(loss=f"{loss:.4f}", acc=f"{accuracy:.3f}", lr=f"{at.rate:.2e}", refresh=False)
                at.step += 1
                at.done += 1
                at.seconds = time.monotonic() - began
                bar.update()
                if stop:
                    self._stop()
                if self._due():
                    self._save()
        self.interrupts.at_once = True
        if self.interrupts.pending:
            self._stop()

    def _step(self, parts, images: int) -> tuple[float, float, bool]:
        """One step of the optimizer on this rank's batches, of `images` in all ranks: mean loss, accuracy, and
        whether any rank was asked to stop."""
        settings, at = self.settings, self.at
        # Dropout depends on this alone, so that a run can be taken up at any step.
        paddle.seed(int(np.random.SeedSequence([settings.seed, at.step, rank()]).generate_state(1)[0]))
        sums = np.zeros(3, "float32")
        for pixels, labels in parts:
            labels = paddle.to_tensor(labels)
            with paddle.amp.auto_cast(enable=self.amp):
                logits = self.trained.logits(self.trained.features(paddle.to_tensor(pixels)))
            loss = self.loss(logits, labels).sum() / images
            self.scaler.scale(loss).backward()
            sums[:2] += float(loss), float(hits(logits, labels, self.loss.activation).sum()) / images
        sums[2] = self.interrupts.pending
        loss, accuracy, stop = reduce_step(self.parameters, running_statistics(self.model), sums).tolist()
        if not math.isfinite(loss):
            raise InputError(f"the training loss became {loss} in epoch {at.epoch}: lower --learning_rate; "
                             f"what was saved in {self.folder} before stays.")
        check_loss(loss, f"the training loss in epoch {at.epoch}")
        check_share(accuracy, f"the training accuracy in epoch {at.epoch}")
        at.rate = self.optimizer.get_lr()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.held = {}
        self.optimizer.clear_grad()
        self.scheduler.step()
        return loss, accuracy, stop > 0

    def _trace(self, loss: float, accuracy: float) -> None:
        self.history.steps.append(self.at.step)
        self.history.losses.append(loss)
        self.history.accuracies.append(accuracy)
        if self.log:
            self.log.add("train", {"loss": loss, "accuracy": accuracy, "learning_rate": self.at.rate}, self.at.step)

    def _close_epoch(self, report: Report, seconds: float) -> None:
        """Keep weights and figures of the epoch, which took `seconds`, and go on to the next."""
        settings, at, history = self.settings, self.at, self.history
        told = {"epoch": at.epoch, "learning_rate": at.rate, "train_loss": at.loss_sum / at.seen,
                "train_accuracy": at.accuracy_sum / at.seen,
                **{f"val_{name}": report.values[name] for name in ("loss", "accuracy", "AUROC_avg", settings.monitor)}}
        row = {**told, "seconds": round(seconds, 1)}
        score = report.values[settings.monitor]
        # Where the figure is undefined (no positives in the validation set) the latest epoch counts as the best.
        better = history.best is None or not score <= history.best[f"val_{settings.monitor}"]
        self.interrupts.at_once = False          # what follows belongs together
        history.rows.append(row)
        if better:
            history.best = row
        if rank() == 0:
            with self._full_disk_told():
                # Without the time it took, so that a run taken up again ends with the same file.
                save_weights(self.model, self.folder / "last.pdparams", {**self.meta, "training": told})
                if better:
                    save_weights(self.model, self.folder / "best.pdparams", {**self.meta, "training": told})
                history.save(self.folder, settings.monitor)
        if self.log:
            self.log.add("val", {name: row[f"val_{name}"] for name in ("loss", "accuracy", "AUROC_avg")}, at.epoch)
        print(f"Epoch {at.epoch}/{settings.epochs}: train loss {row['train_loss']:.4f}, train accuracy "
              f"{row['train_accuracy']:.4f}; val {headline(report.values)}; {row['seconds']:.0f} s"
              f"{f' (best {settings.monitor} so far)' if better else ''}"
              + (f"\n{report.table}" if settings.tables else ""), flush=True)
        if at.done == self.steps:
            self.at = _Position(epoch=at.epoch + 1, step=at.step, rate=at.rate)
        self._save()
        self.interrupts.at_once = True
        if self.interrupts.pending:
            raise KeyboardInterrupt(self._where())

    def _due(self) -> bool:
        every = self.settings.save_every
        pause = max(60 * _SAVE_EVERY, self.cost / _SHARE) if every is None else 60 * every
        return time.monotonic() - self.saved_at >= pause

    def _save(self) -> None:
        """Write the checkpoint. All ranks stand at the same place, so that of rank 0 serves them all."""
        if rank() > 0:
            return
        began = time.monotonic()
        scaler = {name: np.asarray(value).tolist() for name, value in self.scaler.state_dict().items()}
        facts = {"identity": self.identity, "position": asdict(self.at), "history": asdict(self.history),
                 "scheduler": self.scheduler.state_dict(), "scaler": scaler}
        with self._full_disk_told():
            arrays = resume.collect(self.model, self.optimizer, self.held)
            resume.write(self.folder, resume.Saved(arrays, facts))
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - began

    def _stop(self) -> None:
        self._save()
        raise KeyboardInterrupt(self._where())

    def _where(self) -> str:
        return f"after {self.at.step} steps; the same command with --resume goes on from there"

    @contextmanager
    def _full_disk_told(self):
        try:
            yield
        except OSError as error:
            raise InputError(f"{self.folder} cannot be written to ({error.strerror}): free some space, then go on with "
                             "--resume; the last checkpoint is whole.") from None


def _digest(dataset) -> str:
    """How many images a set has, and a checksum of their names and labels."""
    digest = hashlib.sha256("\n".join(dataset.names).encode())
    digest.update(np.ascontiguousarray(dataset.labels).tobytes())
    return f"({len(dataset)}, checksum {digest.hexdigest()[:12]})"


def validate(model, dataset, batch_size: int, workers: int) -> Report:
    """Evaluate `model` on a data set; leaves it in eval mode. Raises `InputError` where scores are not numbers."""
    logits = predict(Predictor(model, "dygraph"), dataset, batch_size, workers, desc="validate")
    if not np.isfinite(logits).all():
        raise InputError("the weights diverged, the model's scores are no numbers: lower --learning_rate.")
    report = evaluate(logits, dataset.labels, dataset.class_names, model.activation)
    if not math.isfinite(report.values["loss"]):
        raise InputError(f"the validation loss is {report.values['loss']}: lower --learning_rate.")
    return report
