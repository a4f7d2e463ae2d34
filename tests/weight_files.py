"""A small model and its weights, for the tests of reading and writing them."""
import numpy as np
import paddle
import pytest

from cxr.errors import InputError
from cxr.weights import load_weights


def make_model(seed=0):
    """A small model with weights, biases and batch-norm statistics, all of them random."""
    model = paddle.nn.Sequential(paddle.nn.Conv2D(1, 2, 3), paddle.nn.BatchNorm2D(2), paddle.nn.Linear(3, 2))
    rng = np.random.default_rng(seed)
    for value in model.state_dict().values():
        value.set_value(rng.standard_normal(value.shape).astype("float32"))
    return model


def values(model):
    return {key: value.numpy() for key, value in model.state_dict().items()}


def state():
    return values(make_model(1))


def same(left, right):
    return list(left) == list(right) and all((left[key] == right[key]).all() for key in left)


def loaded(path):
    model = make_model(0)
    meta = load_weights(model, path)
    return values(model), meta


def refuser(tmp_path):
    """`check(content)`: a file of these bytes is refused, by its name, and the model left alone; gives the sentence."""
    def check(content):
        path = tmp_path / "bad.pdparams"
        path.write_bytes(content)
        model = make_model(0)
        before = values(model)
        with pytest.raises(InputError) as error:
            load_weights(model, path)
        assert str(path) in str(error.value)
        assert same(values(model), before)
        return str(error.value)
    return check
