"""Learning rates of the COVID notebook: linear warm-up, then half a cosine down to zero.

He et al. 2019, "Bag of Tricks for Image Classification with Convolutional Neural Networks".
"""
from __future__ import annotations

from typing import Any

from paddle.optimizer.lr import CosineAnnealingDecay, LinearWarmup


class Cosine(CosineAnnealingDecay):
    """Half a cosine from `learning_rate` to 0 over `step_each_epoch * epoch_num` steps; call `step()` per batch."""

    def __init__(self, learning_rate: float, step_each_epoch: int, epoch_num: float, **kwargs: Any):
        super().__init__(learning_rate=learning_rate, T_max=max(1, round(step_each_epoch * epoch_num)), **kwargs)


class CosineWarmup(LinearWarmup):
    """From 0 up to `learning_rate` over the warm-up epochs, then `Cosine` over the rest; call `step()` per batch.

    `step_each_epoch` must be `len(loader)`: with the last short batch left uncounted, as in the notebook's
    `len(dataset) // batch_size`, the cosine ends early and the rate rises again.

    Args:
        learning_rate: the highest.
        step_each_epoch: see above.
        epoch_num: epochs of the whole schedule.
        warmup_epoch_num: epochs of the warm-up, which may be a part of one and lasts at least one step.

    Raises:
        ValueError: unless `epoch_num > warmup_epoch_num`.
    """

    def __init__(self, learning_rate: float, step_each_epoch: int, epoch_num: int, warmup_epoch_num: float = 5,
                 **kwargs: Any):
        if epoch_num <= warmup_epoch_num:
            raise ValueError(f"epoch_num ({epoch_num}) must be larger than warmup_epoch_num ({warmup_epoch_num}).")
        # LinearWarmup steps the inner schedule only from the end of the warm-up.
        cosine = Cosine(learning_rate, step_each_epoch, epoch_num - warmup_epoch_num)
        super().__init__(learning_rate=cosine, warmup_steps=max(1, round(warmup_epoch_num * step_each_epoch)),
                         start_lr=0.0, end_lr=learning_rate, **kwargs)
