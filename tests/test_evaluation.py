"""The sections of the report: the right numbers in the right cells, and everything undefined said."""
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from cxr.errors import InputError
from cxr.evaluation.case import MEAN, Case
from cxr.evaluation.comparison import compare, short_names
from cxr.evaluation.report import Note, Picture, Table
from cxr.evaluation.sections import data_section, judge
from cxr.metrics import rates
from cxr.metrics.bootstrap import Resamples, interval
from cxr.metrics.calibration import logits_from_scores
from cxr.metrics.classification import evaluate_scores, log_loss
from cxr.metrics.published import PublishedFigures, comparable
from cxr.metrics.thresholds import Operating

NAMES = ("Mass", "Edema")


def findings(n=120, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 2)) < [0.3, 0.2]).astype("float32")
    scores = np.round(np.clip(rng.normal(0.3, 0.15, (n, 2)) + 0.2 * labels, 0.01, 0.99), 2)
    return Case(scores, labels, NAMES, "sigmoid", [f"p{index // 2}" for index in range(n)])


def exclusive(n=150, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    scores = rng.dirichlet((1, 1, 1), n) * 0.6 + 0.4 * np.eye(3)[labels] * (rng.random((n, 1)) < 0.7)
    return Case(scores / scores.sum(axis=1, keepdims=True), labels, ("a", "b", "c"), "softmax", list(range(n)))


def report_of(case):
    loss = log_loss(logits_from_scores(case.scores, case.activation), case.labels, case.activation)
    return evaluate_scores(case.scores, case.labels, case.class_names, case.activation, loss)


def judged(case, **options):
    result = judge(case, report_of(case), resamples=options.pop("resamples", 60), **options)
    return {section.name: section for section in result.sections}, result.table


def blocks(section, kind):
    return [block for block in section.blocks if isinstance(block, kind)]


def test_ranking_equals_scikit_learn_and_the_bootstrap():
    case = findings()
    sections, console = judged(case)
    values = sections["ranking"].values
    for k, name in enumerate(NAMES):
        assert values[name]["AUROC"]["value"] == pytest.approx(
            roc_auc_score(case.labels[:, k], case.scores[:, k]), abs=1e-12)
        assert values[name]["average_precision"]["value"] == pytest.approx(
            average_precision_score(case.labels[:, k], case.scores[:, k]), abs=1e-12)
    areas, _ = Resamples(case.patients, 60).ranking(case.scores, case.truth)
    assert values["Mass"]["AUROC"]["low"] == interval(areas[:, 0]).low
    assert values[MEAN]["AUROC"]["high"] == interval(areas.mean(axis=1)).high
    assert values[MEAN]["AUROC"]["value"] == pytest.approx(np.mean([values[n]["AUROC"]["value"] for n in NAMES]))
    table, = blocks(sections["ranking"], Table)
    row = next(row for row in table.rows if row[0] == "Mass")
    assert row[1] == str(int(case.labels[:, 0].sum())) and row[3] in console
    assert int(row[2]) == len({patient for patient, label in zip(case.patients, case.labels[:, 0]) if label})


def test_decisions_at_a_half_and_at_the_stored_thresholds():
    case = findings()
    operating = Operating({"Mass": 0.4, "Edema": float("nan")}, {"Mass": .3, "Edema": .2}, "youden", "val.txt", 1.5)
    sections, console = judged(case, operating=operating)
    values = sections["decisions"].values
    for kind, threshold in (("threshold 0.5", 0.5), ("stored thresholds", 0.4)):
        called, truth = case.scores[:, 0] >= threshold, case.labels[:, 0] > 0
        found = values[kind]["Mass"]
        assert (found["TP"], found["FP"], found["FN"], found["TN"]) == (
            (called & truth).sum(), (called & ~truth).sum(), (~called & truth).sum(), (~called & ~truth).sum())
        assert found["recall"]["value"] == pytest.approx((called & truth).sum() / truth.sum())
        assert found["specificity"]["value"] == pytest.approx((~called & ~truth).sum() / (~truth).sum())
        assert found["precision"]["low"] < found["precision"]["value"] < found["precision"]["high"]
    without = values["stored thresholds"]["Edema"]
    assert np.isnan(without["TP"]) and np.isnan(without["recall"]["value"]) and np.isnan(without["recall"]["low"])
    assert "Edema" in blocks(sections["decisions"], Note)[0].text
    assert "by the stored thresholds" in console and "youden" in sections["decisions"].blocks[0]
    assert "temperature 1.500" in sections["calibration"].values


def test_intervals_of_rates_equal_a_loop_over_copied_images():
    case = findings(40)
    values = judged(case)[0]["decisions"].values["threshold 0.5"]
    draws = Resamples(case.patients, 60)
    times = np.concatenate(list(draws.draws()), axis=1).astype(int)
    called, truth = case.scores >= 0.5, case.labels > 0
    recall, accuracy = [], []
    for r in range(60):
        rows = np.repeat(np.arange(40), times[draws.patient, r])
        recall.append((called & truth)[rows, 0].sum() / truth[rows, 0].sum())
        accuracy.append((called == truth)[rows].mean())
    assert (values["Mass"]["recall"]["low"], values["Mass"]["recall"]["high"]) == pytest.approx(
        np.percentile(recall, [2.5, 97.5]), abs=1e-12)
    assert (values["accuracy"]["low"], values["accuracy"]["high"]) == pytest.approx(
        np.percentile(accuracy, [2.5, 97.5]), abs=1e-12)


def test_exclusive_classes_have_a_confusion_matrix():
    case = exclusive()
    sections, console = judged(case)
    values = sections["decisions"].values
    expected = confusion_matrix(case.labels, case.scores.argmax(axis=1))
    assert values["confusion"] == expected.tolist()
    assert values["highest score"]["accuracy"]["value"] == pytest.approx(np.trace(expected) / 150)
    assert values["highest score"]["b"]["TP"] == expected[1, 1]
    assert [picture.name for picture in blocks(sections["decisions"], Picture)] == ["confusion"]
    assert "class called" in sections["calibration"].values["as given"] and "by the highest score" in console


def test_what_is_undefined_is_said():
    case = findings()
    case.labels[:, 1] = 0
    with pytest.warns(UserWarning, match="Edema"):
        sections, console = judged(case)
    assert np.isnan(sections["ranking"].values["Edema"]["AUROC"]["value"])
    assert "AUROC of Edema" in blocks(sections["ranking"], Note)[0].text
    assert "recall of Edema (no positives)" in blocks(sections["decisions"], Note)[0].text
    assert "nan" in console


def test_resamples_without_positives_are_counted():
    case = findings()
    case.labels[:, 1] = 0
    case.labels[0, 1] = 1                        # one positive patient of 60: missing in 36 % of the resamples
    sections, _ = judged(case, resamples=300)
    kept = sections["ranking"].values["Edema"]["AUROC"]["resamples"]
    assert 160 < kept < 220 and sections["ranking"].values[MEAN]["AUROC"]["resamples"] == kept
    assert f"of 300 resamples Edema {300 - kept}, the mean {300 - kept}" in blocks(sections["ranking"], Note)[0].text


PUBLISHED = (PublishedFigures("Them", {"AUROC_Mass": .8, "AUROC_Edema": .9, "AUROC_avg": .85}, 120, "on their set"),)


def test_published_columns_stand_beside_ours_on_their_set_only():
    fitting, told = comparable(PUBLISHED, 120, NAMES)
    assert fitting == list(PUBLISHED) and "as many images as the published one (120)" in told[0]
    fitting, told = comparable(PUBLISHED, 121, NAMES)
    assert fitting == [] and "not comparable with Them (120 images)" in told[0] and "this set has 121" in told[0]
    fitting, told = comparable(PUBLISHED, 120, ("Mass", "Hernia"))
    assert fitting == [] and "Other classes, so not comparable with Them" in told[0]
    sections, console = judged(findings(), published=PUBLISHED)
    table, = blocks(sections["ranking"], Table)
    assert table.header[4] == "Them" and [row[4] for row in table.rows] == ["0.800", "0.900", "0.850"]
    assert "Them" in console and sections["ranking"].values["Mass"]["published_AUROC"] == {"Them": .8}


@pytest.fixture
def npv(monkeypatch):
    """A rate that is added where rates are added, and nowhere else."""
    rate = rates.Rate("NPV", lambda n: (n.rejections, n.rejections + n.misses), "always called")
    monkeypatch.setattr(rates, "RATES", (*rates.RATES, rate))


def test_a_new_rate_is_one_entry(npv):
    case = findings()
    report, (sections, console) = report_of(case), judged(case)
    called, truth = case.scores[:, 0] >= 0.5, case.labels[:, 0] > 0
    expected = (~called & ~truth).sum() / (~called).sum()
    assert report.values["NPV_Mass"] == pytest.approx(expected) and "NPV" in report.table
    stored = sections["decisions"].values["threshold 0.5"]["Mass"]["NPV"]
    assert stored["value"] == pytest.approx(expected) and stored["low"] < expected < stored["high"]
    table, = blocks(sections["decisions"], Table)
    row = next(row for row in table.rows if row[0] == "Mass")
    assert sections["decisions"].title == "Decisions: precision, recall, specificity, F1, NPV"
    assert table.header[-1] == "NPV (95 %)" and row[-1].startswith(f"{expected:.3f} (")
    assert f"| {expected:.3f} |" in console and "Precision, recall, F1 and NPV by the threshold" in console


def test_a_new_rate_is_named_where_it_is_undefined(npv):
    case = findings()
    case.scores[:] = 0.9                         # everything is called, so nothing is spared
    sections, _ = judged(case)
    assert "NPV of Mass, Edema (always called)" in blocks(sections["decisions"], Note)[0].text


def test_published_figures_need_not_have_a_new_rate(npv):
    case = exclusive()
    values = {f"{rate}_{name}": 0.25 for rate in ("precision", "recall", "F1") for name in case.class_names}
    values.update(accuracy=0.5, NPV_b=0.75)
    sections, _ = judged(case, published=(PublishedFigures("Them", values, 150, "on their set"),))
    table, = blocks(sections["decisions"], Table)
    titles = [title for title in table.header[5:] if title != "Them"]
    beside = {title: [row[table.header.index(title) + 1] for row in table.rows] for title in titles[:2] + titles[3:]}
    assert titles == ["Precision (95 %)", "Recall (95 %)", "Specificity (95 %)", "F1 (95 %)", "NPV (95 %)"]
    assert table.header.count("Them") == 4 and beside["F1 (95 %)"] == ["0.250"] * 3
    assert beside["NPV (95 %)"] == ["", "0.750", ""]


def test_data_section_counts_and_warns():
    case = findings()
    section = data_section({"List": "x"}, [f"i{n}" for n in range(120)], case, ["Careful."])
    assert section.values["Images"] == 120 and section.values["Patients"] == 60
    assert [note.text for note in blocks(section, Note)] == ["Careful."]
    other = data_section({}, [f"i{n}" for n in reversed(range(120))], case)
    assert other.values["SHA-256 of the sorted names"] == section.values["SHA-256 of the sorted names"]
    alone = data_section({}, ["a", "b"], Case(case.scores[:2], case.labels[:2], NAMES, "sigmoid", ["a", "b"]))
    assert "Every image counts as a patient" in blocks(alone, Note)[0].text


# --- comparison ----------------------------------------------------------------------------------------------------

def test_difference_is_paired():
    first, second = findings(), findings()
    noisy = Case(second.scores + np.random.default_rng(1).normal(0, .01, second.scores.shape), second.labels, NAMES,
                 "sigmoid", second.patients)
    result = compare(first, noisy, ("A", "B"), resamples=200)
    values = result.sections[0].values["Mass"]
    areas = [roc_auc_score(case.labels[:, 0], case.scores[:, 0]) for case in (first, noisy)]
    assert values["difference"]["value"] == pytest.approx(areas[0] - areas[1], abs=1e-12)
    drawn = [Resamples(case.patients, 200).ranking(case.scores, case.truth)[0][:, 0] for case in (first, noisy)]
    assert values["difference"]["low"] == interval(drawn[0] - drawn[1]).low
    # Shared noise cancels: the difference is far surer than either figure.
    alone = interval(drawn[0])
    assert values["difference"]["high"] - values["difference"]["low"] < 0.3 * (alone.high - alone.low)
    assert [section.name for section in result.sections] == ["difference_AUROC", "difference_average_precision"]
    same = compare(first, second, ("A", "B"), resamples=60).sections[0].values[MEAN]
    assert same["difference"]["value"] == same["difference"]["low"] == 0 and same["p"] == 1


def test_accuracy_of_exclusive_classes_is_compared():
    good = exclusive()
    bad = Case(np.full_like(good.scores, 1 / 3), good.labels, good.class_names, "softmax", good.patients)
    values = compare(good, bad, ("good", "bad"), resamples=100).sections[-1].values["Accuracy"]
    assert values["good"] == pytest.approx((good.scores.argmax(axis=1) == good.labels).mean())
    assert values["difference"]["low"] > 0 and values["p"] == pytest.approx(2 / 101)


def test_short_names():
    assert short_names(["x/ours.csv", "y/theirs.csv"]) == ("ours", "theirs")
    assert short_names(["x/eval/p.csv", "y/eval/p.csv"]) == ("x/eval/p", "y/eval/p")
    with pytest.raises(InputError, match="twice"):
        short_names(["p.csv", "p.csv"])
