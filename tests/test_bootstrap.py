"""Bootstrap over patients, held against scikit-learn and against a plain loop that copies images."""
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from cxr.metrics.bootstrap import Ranking, Resamples, interval, p_value


def drawn(n, classes=1, ties=True, seed=0, share=0.3):
    rng = np.random.default_rng(seed)
    scores = rng.random((n, classes))
    return np.round(scores, 1) if ties else scores, rng.random((n, classes)) < share


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_unweighted_it_is_scikit_learns_figure(ties, share):
    scores, truth = drawn(500, ties=ties, share=share)
    area, precision = Ranking(scores[:, 0], truth[:, 0], np.arange(500), 500)(np.ones((500, 1)))
    assert area[0] == pytest.approx(roc_auc_score(truth[:, 0], scores[:, 0]), abs=1e-12)
    assert precision[0] == pytest.approx(average_precision_score(truth[:, 0], scores[:, 0]), abs=1e-12)


@pytest.mark.parametrize("ties", [True, False])
def test_every_resample_equals_a_loop_that_copies_the_images(ties):
    scores, truth = drawn(80, 3, ties, share=0.15)
    patients = np.array([f"p{index // 3}" for index in range(80)])
    resamples = Resamples(patients, count=70, seed=5)
    areas, precisions = resamples.ranking(scores, truth)
    weights = np.concatenate(list(resamples.draws()), axis=1).astype(int)
    assert weights.shape == (27, 70) and (weights.sum(axis=0) == 27).all()
    for r in range(70):
        rows = np.repeat(np.arange(80), weights[resamples.patient, r])
        for k in range(3):
            own = truth[rows, k]
            if own.any():
                assert areas[r, k] == pytest.approx(roc_auc_score(own, scores[rows, k]), abs=1e-12)
                assert precisions[r, k] == pytest.approx(average_precision_score(own, scores[rows, k]), abs=1e-12)
            else:
                assert np.isnan(areas[r, k]) and np.isnan(precisions[r, k])


def test_interval_equals_that_of_the_slow_loop():
    scores, truth = drawn(60)
    patients = np.arange(60) // 2
    resamples = Resamples(patients, count=300, seed=1)
    rng, slow = np.random.default_rng(1), []
    for _ in range(300):
        rows = np.concatenate([np.flatnonzero(patients == patient) for patient in rng.integers(30, size=30)])
        slow.append(roc_auc_score(truth[rows, 0], scores[rows, 0]))
    fast = interval(resamples.ranking(scores, truth)[0][:, 0])
    assert (fast.low, fast.high) == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=1e-12)
    assert fast.kept == 300


def test_images_of_one_patient_are_not_several_proofs():
    scores, truth = drawn(300, ties=False)
    scores, truth = np.repeat(scores, 5, axis=0), np.repeat(truth, 5, axis=0)
    width = {}
    for name, patients in (("patients", np.arange(1500) // 5), ("images", np.arange(1500))):
        found = interval(Resamples(patients, 400).ranking(scores, truth)[0][:, 0])
        width[name] = found.high - found.low
    assert width["patients"] == pytest.approx(width["images"] * 5 ** 0.5, rel=0.2)


def test_draws_depend_on_seed_and_patients_alone():
    first, again = (np.concatenate(list(Resamples(list("aabbc"), 100, seed=3).draws()), axis=1) for _ in range(2))
    other = np.concatenate(list(Resamples(list("aabbc"), 100, seed=4).draws()), axis=1)
    assert (first == again).all() and (first != other).any()
    assert (np.concatenate(list(Resamples(list("aabbc"), 1000, seed=3).draws()), axis=1)[:, :100] == first).all()


def test_sums_count_images_as_often_as_their_patient_was_drawn():
    resamples = Resamples(["a", "a", "b"], count=50)
    sums = resamples.sums(np.array([[1, 10], [2, 20], [4, 40]]))
    times = np.concatenate(list(resamples.draws()), axis=1)
    assert (sums[:, 0] == 3 * times[0] + 4 * times[1]).all() and (sums[:, 1] == 10 * sums[:, 0]).all()


def test_undefined_resamples_are_left_out_and_counted():
    samples = np.concatenate([np.arange(101.0), np.full(7, np.nan)])
    found = interval(samples)
    assert (found.low, found.high, found.kept) == (2.5, 97.5, 101)
    few = interval(samples[-46:])
    assert np.isnan(few.low) and np.isnan(few.high) and few.kept == 39


def test_a_single_patient_gives_no_interval():
    scores, truth = drawn(20)
    areas, precisions = Resamples(["p"] * 20, 50).ranking(scores, truth)
    assert areas.shape == (50, 1) and np.isnan(areas).all() and np.isnan(precisions).all()
    assert np.isnan(Resamples(["p"] * 20, 50).sums(scores)).all()


def test_p_value_by_hand():
    assert p_value(np.array([1.0] * 97 + [-1] * 2)) == pytest.approx(2 * 3 / 100)
    assert p_value(-np.array([1.0] * 97 + [-1] * 2)) == pytest.approx(2 * 3 / 100)
    assert p_value(np.zeros(99)) == 1
    assert p_value(np.ones(999)) == pytest.approx(2 / 1000)
    assert np.isnan(p_value(np.ones(39)))
