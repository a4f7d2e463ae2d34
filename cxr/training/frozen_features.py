"""What a frozen backbone makes of every image, computed once."""
from __future__ import annotations

import numpy as np
import paddle

from cxr.errors import InputError
from cxr.utils.distributed import merge, share
from cxr.utils.parallel import batches, default_workers
from cxr.utils.progress import progress


class Head(paddle.nn.Layer):
    """The classifier of a model as a model by itself, for the vectors of `embed`: (B, C, 1, 1) to logits (B, K)."""

    def __init__(self, model: paddle.nn.Layer):
        super().__init__()
        self.classifier, self.activation = model.classifier, model.activation

    def features(self, x: paddle.Tensor) -> paddle.Tensor:
        """The vectors as they are."""
        return x

    def logits(self, features: paddle.Tensor) -> paddle.Tensor:
        """(B, C, 1, 1) to (B, K)."""
        return self.classifier(features.flatten(1))


class Embedded:
    """A data set of what the backbone makes of each image: items `(vector (C, 1, 1) float32, label)`."""

    def __init__(self, dataset, vectors: np.ndarray, targets: np.ndarray):
        self.names, self.labels, self.class_names = dataset.names, dataset.labels, dataset.class_names
        self.vectors, self.targets = vectors, targets
        self.transform, self.epoch = None, 0

    def __getitem__(self, index: int):
        return self.vectors[index], self.targets[index]

    def __len__(self) -> int:
        return len(self.vectors)


@paddle.no_grad()
def embed(model, dataset, batch_size: int, workers: int | None = None, desc: str = "features") -> Embedded:
    """Run every image through the frozen backbone once: what the classifier gets, 4 C bytes an image in memory.

    The transform of the data set must not be random, and the model goes into eval mode.
    """
    model.eval()
    caught: list = []
    hook = model.classifier.register_forward_pre_hook(lambda layer, inputs: caught.append(inputs[0]))
    vectors, targets = [], []
    indices = share(range(len(dataset)))
    try:
        with progress(None, total=len(indices), desc=desc) as bar:
            for images, labels in batches(dataset, indices, batch_size,
                                          default_workers() if workers is None else workers):
                model.logits(model.features(paddle.to_tensor(images)))
                vectors.append(caught.pop().numpy())
                targets.append(labels)
                bar.update(len(images))
    finally:
        hook.remove()
    vectors, targets = (np.concatenate(parts) if parts else np.zeros((0,), "float32") for parts in (vectors, targets))
    vectors, targets = merge(vectors, len(dataset)), merge(targets, len(dataset))
    if not np.isfinite(vectors).all():
        raise InputError("the frozen backbone gives features that are no numbers: check its weights and preprocessing.")
    return Embedded(dataset, vectors[:, :, None, None], targets)
