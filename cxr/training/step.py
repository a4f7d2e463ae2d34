"""One step of the optimizer, on the images of all processes."""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import paddle

from cxr.device.guards import check_loss, check_share
from cxr.errors import InputError
from cxr.models.transfer import running_statistics, trainable
from cxr.training.losses import Loss, hits
from cxr.training.resume import Position
from cxr.training.settings import Settings
from cxr.utils.distributed import rank, reduce_step


@dataclass(frozen=True)
class StepResult:
    """Mean loss and accuracy over the images of a step, and whether any process was asked to stop."""
    loss: float
    accuracy: float
    stop: bool


class Stepper:
    """Makes the steps: forward, loss, gradients, sum over all processes, optimizer, schedule.

    Args:
        model: whose weights change.
        optimizer, scheduler: from Paddle; the scheduler is stepped once a step.
        settings: seed and mixed precision.
        loss: of every image of a batch.

    Attributes:
        network: what the batches go through: the model, or its `Head` where a batch holds features already.
        scaler: scales the loss for float16; does nothing without mixed precision.
    """

    def __init__(self, model, optimizer, scheduler, settings: Settings, loss: Loss):
        self.model = self.network = model
        self.optimizer, self.scheduler, self.settings, self.loss = optimizer, scheduler, settings, loss
        self.parameters = trainable(model)
        # Paddle casts on GPUs alone, and its scaler would only warn elsewhere.
        if settings.amp and paddle.get_device() == "cpu":
            print("Note: mixed precision needs a GPU; on the CPU training goes on in float32.")
        self.amp = settings.amp and paddle.get_device() != "cpu"
        self.scaler = paddle.amp.GradScaler(enable=self.amp)

    def step(self, parts: Iterable, images: int, position: Position, asked_to_stop: Callable[[], bool]) -> StepResult:
        """Make one step and note its learning rate in `position`.

        Args:
            parts: `(pixels, labels)` of the batches of this process.
            images: how many there are in all processes.
            position: where the run stands.
            asked_to_stop: whether this process has got a signal, asked once its gradients are computed.

        Raises:
            InputError: the loss is not a number, or a figure is one that cannot be. The weights are unchanged then.
        """
        settings = self.settings
        # Dropout depends on this alone, so that a run can be taken up at any step.
        paddle.seed(int(np.random.SeedSequence([settings.seed, position.step, rank()]).generate_state(1)[0]))
        sums = np.zeros(3, "float32")
        for pixels, labels in parts:
            labels = paddle.to_tensor(labels)
            with paddle.amp.auto_cast(enable=self.amp):
                logits = self.network.logits(self.network.features(paddle.to_tensor(pixels)))
            loss = self.loss(logits, labels).sum() / images
            self.scaler.scale(loss).backward()
            sums[:2] += float(loss), float(hits(logits, labels, self.loss.activation).sum()) / images
        sums[2] = asked_to_stop()
        loss, accuracy, stop = reduce_step(self.parameters, running_statistics(self.model), sums).tolist()
        if not math.isfinite(loss):
            raise InputError(f"the training loss became {loss} in epoch {position.epoch}: lower --learning_rate; "
                             f"what was saved in {settings.save_dir} before stays.")
        check_loss(loss, f"the training loss in epoch {position.epoch}")
        check_share(accuracy, f"the training accuracy in epoch {position.epoch}")
        position.rate = self.optimizer.get_lr()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.clear_grad()
        self.scheduler.step()
        return StepResult(loss, accuracy, stop > 0)
