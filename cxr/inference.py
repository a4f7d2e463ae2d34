"""Scores of many images: one model, any data set, batches prepared ahead."""
from __future__ import annotations

import numpy as np
import paddle

from cxr.metrics import scores_from_logits
from cxr.parallel import batches, default_workers
from cxr.progress import progress


class Predictor:
    """A model for inference: `scores, features = Predictor(model)(x)`.

    Args:
        model: has `features`, `logits` and `activation` (see `cxr.recipe`); it is put into eval mode.
    """

    def __init__(self, model):
        model.eval()
        self.model = model

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) float32 to probabilities (B, K) and features (B, C, h, w), float32."""
        logits, features = self._run(x)
        return scores_from_logits(logits[:, None], self.model.activation), features

    def logits(self, x: np.ndarray) -> np.ndarray:
        """(B, 3, H, W) float32 to scores before sigmoid or softmax, (B, K) float32."""
        return self._run(x)[0]

    @paddle.no_grad()
    def _run(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = self.model.features(paddle.to_tensor(x))
        return self.model.logits(features).numpy(), features.numpy()


def predict(predictor: Predictor, dataset, batch_size: int = 32, workers: int | None = None,
            desc: str = "evaluate") -> np.ndarray:
    """Logits of every image of `dataset`, in its order: (N, crops, K) float32.

    The transform of the data set gives (3, H, W), which counts as one crop, or (crops, 3, H, W).
    """
    workers = default_workers() if workers is None else workers
    results = []
    with progress(None, total=len(dataset), desc=desc) as bar:
        for images, _ in batches(dataset, range(len(dataset)), batch_size, workers):
            if images.ndim == 4:
                images = images[:, None]
            logits = predictor.logits(images.reshape(-1, *images.shape[2:]))
            results.append(logits.reshape(*images.shape[:2], -1))
            bar.update(len(images))
    return np.concatenate(results)
