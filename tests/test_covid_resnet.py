"""The COVID ResNet: notebook's keys and counts, schedule, splits, data set, Grad-CAM class."""
import collections
import re
from types import SimpleNamespace

import cv2
import numpy as np
import paddle
import pytest

from covid_resnet import BasicBlock, BottleneckBlock, Cosine, CosineWarmup, CovidDataset, GradCAM, ResNet, get_mean_std
from covid_resnet.recipe import CovidResNetRecipe
from cxr.data.class_folders import find_classes, read_labels, split, write_lists
from cxr.data.dataset import check_folders
from cxr.data.images import read_image
from cxr.data.lists import read_patients
from cxr.errors import InputError
from cxr.visual.image_files import save_picture


def test_summary_counts_what_the_notebook_printed(capfd):
    assert int(paddle.summary(ResNet(50, 4), (1, 3, 224, 224))["total_params"]) == 23_569_348


@pytest.mark.parametrize("layers, blocks, kind, channels", [
    (18, 8, BasicBlock, 512), (34, 16, BasicBlock, 512), (50, 16, BottleneckBlock, 2048),
    (101, 33, BottleneckBlock, 2048), (152, 50, BottleneckBlock, 2048)])
def test_every_size_has_its_blocks_and_shapes(layers, blocks, kind, channels):
    model = ResNet(layers, 3)
    model.eval()
    assert len(model.block) == blocks and isinstance(model.block[0], kind)
    assert model.last_block == f"block.{blocks - 1}"
    x = paddle.randn([2, 3, 64, 32])
    with paddle.no_grad():
        features = model.features(x)
        assert features.shape == [2, channels, 2, 1]
        assert model(x).shape == [2, 3]
        assert np.array_equal(model(x).numpy(), model.head(features).numpy())


def test_keys_are_the_notebooks():
    keys = list(ResNet(50, 4).state_dict())
    assert keys[:2] == ["conv.0.weight", "conv.1.weight"] and keys[-2:] == ["fc.weight", "fc.bias"]
    block = [key for key in keys if key.startswith("block.0.")]
    assert "block.0.conv1.0.weight" in block and "block.0.conv3.1._mean" in block
    assert "block.0.shortcut.0.weight" in block and "block.0.shortcut.1._variance" in block
    assert not any(key.startswith("block.1.shortcut") for key in keys)
    assert {int(re.match(r"block\.(\d+)", key)[1]) for key in keys if key.startswith("block")} == set(range(16))
    assert not any(key.startswith("block.0.shortcut") for key in ResNet(18, 4).state_dict())


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="18, 34, 50, 101, 152 layers, not 20"):
        ResNet(20, 4)


# ------------------------------------------------------------------ schedule

def rates(scheduler, steps):
    values = []
    for _ in range(steps):
        values.append(scheduler())
        scheduler.step()
    return np.array(values)


def test_cosine_runs_from_the_rate_to_zero_in_the_given_steps():
    values = rates(Cosine(0.1, step_each_epoch=5, epoch_num=4), 21)
    assert values[0] == 0.1 and values[10] == pytest.approx(0.05) and values[20] == pytest.approx(0, abs=1e-12)


def test_warmup_rises_then_falls_once_to_zero():
    values = rates(CosineWarmup(0.01, step_each_epoch=3, epoch_num=8, warmup_epoch_num=2), 25)
    assert np.allclose(values[:7], 0.01 * np.arange(7) / 6)                   # 2 epochs of 3 steps
    assert (np.diff(values[6:]) < 0).all()                                    # never up again, to the very end
    assert values[6 + 9] == pytest.approx(0.005)                              # half of the 18 steps that remain
    assert values[24] == pytest.approx(0, abs=1e-12)


def test_warmup_of_part_of_an_epoch_and_of_nothing():
    assert np.allclose(rates(CosineWarmup(0.01, 4, 1, 0.5), 5), [0, 0.005, 0.01, 0.005, 0])
    assert np.allclose(rates(CosineWarmup(0.01, 1, 1, 0), 2), [0, 0.01])


def test_warmup_must_be_shorter_than_the_training():
    with pytest.raises(ValueError, match=r"epoch_num \(5\) must be larger"):
        CosineWarmup(0.01, 10, 5)


@pytest.mark.parametrize("epochs, given, warmup", [(50, None, 5), (100, None, 5), (20, None, 2), (5, 3.0, 3)])
def test_warmup_is_the_published_share_of_a_shorter_run(epochs, given, warmup):
    args = SimpleNamespace(epoch=epochs, learning_rate=0.01, warmup_epochs=given)
    _, scheduler = CovidResNetRecipe().optimizer(args, paddle.nn.Linear(1, 1).parameters(), steps_per_epoch=10)
    assert rates(scheduler, 10 * epochs).argmax() == 10 * warmup


def test_warmup_of_a_whole_run_is_refused():
    args = SimpleNamespace(epoch=5, learning_rate=0.01, warmup_epochs=5.0)
    with pytest.raises(InputError, match="--warmup_epochs 5 must be at least 0 and less than --epoch 5"):
        CovidResNetRecipe().optimizer(args, paddle.nn.Linear(1, 1).parameters(), 10)


# ------------------------------------------------------------------ data

def test_split_is_7_2_1_in_every_class_and_deterministic():
    classes = {"A": [f"A/{i}.png" for i in range(100)], "B": [f"B/{i}.png" for i in range(30)]}
    lists = split(classes, seed=3)
    counts = {name: collections.Counter(label for _, label in items) for name, items in lists.items()}
    assert counts == {"train": {0: 70, 1: 21}, "val": {0: 20, 1: 6}, "test": {0: 10, 1: 3}}
    everything = [name for items in lists.values() for name, _ in items]
    assert len(everything) == len(set(everything)) == 130
    shuffled = {name: list(reversed(names)) for name, names in classes.items()}
    assert split(shuffled, seed=3) == lists                                   # the order of a listing is no matter
    assert split(classes, seed=4) != lists


def test_no_patient_is_in_two_splits_also_across_classes():
    rng = np.random.default_rng(0)
    classes = {"A": [f"A/{i}.png" for i in range(200)], "B": [f"B/{i}.png" for i in range(100)]}
    patients = {name: f"p{rng.integers(60)}" for names in classes.values() for name in names}
    lists = split(classes, patients)
    where = collections.defaultdict(set)
    for part, items in lists.items():
        for name, _ in items:
            where[patients[name]].add(part)
    assert all(len(parts) == 1 for parts in where.values())
    assert [len(lists[part]) / 300 for part in ("train", "val", "test")] == pytest.approx([0.7, 0.2, 0.1], abs=0.03)


def test_large_patients_do_not_tear_the_shares_apart():
    classes = {"A": [f"A/{i}.png" for i in range(100)]}
    patients = {f"A/{i}.png": f"p{i // 30}" for i in range(90)}               # three of 30 images, ten of one
    assert [len(items) for items in split(classes, patients).values()] == [65, 30, 5]


def test_lists_must_number_the_folders_alike(folder):
    paths = write_lists({"train": [("B/images/3.png", 0)]}, folder)
    dataset = CovidDataset(folder, paths["train"], class_names=("A", "B"))
    with pytest.raises(InputError, match=r"gives B/images/3.png the index 0, which is A: number the classes in the"):
        check_folders(dataset, paths["train"])


def test_real_folder_by_patient(data_dir):
    classes = find_classes(data_dir / "covid4")
    assert list(classes) == ["COVID", "LungOpacity", "Normal", "ViralPneumonia"]
    patients = read_patients(data_dir / "covid4" / "sources.csv")
    lists = split(classes, patients)
    assert sum(map(len, lists.values())) == 1142
    parts = [{patients[name] for name, _ in items} for items in lists.values()]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    for index, names in enumerate(classes.values()):                          # 7:2:1 within every class too
        shares = [sum(label == index for _, label in items) / len(names) for items in lists.values()]
        assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.03)


@pytest.fixture
def folder(tmp_path):
    for name, grey in (("A/1 (1).png", 10), ("A/2.png", 20), ("B/images/3.png", 30), ("B/masks/3.png", 255)):
        save_picture(tmp_path / name, np.full((30, 40, 3), grey, np.uint8))
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_class_folders_also_in_the_layout_of_the_radiography_database(folder):
    assert find_classes(folder) == {"A": ["A/1 (1).png", "A/2.png"], "B": ["B/images/3.png"]}
    with pytest.raises(InputError, match="holds 0 folders of images"):
        find_classes(folder / "A")
    with pytest.raises(InputError, match="is no folder"):
        find_classes(folder / "C")


def test_data_set_reads_the_notebooks_lists(folder):
    paths = write_lists({"train": [("A/1 (1).png", 0), ("B/images/3.png", 1)]}, folder)
    dataset = CovidDataset(folder, paths["train"], class_names=("A", "B"))
    image, label = dataset[1]
    assert image.shape == (30, 40, 3) and image.dtype == np.float32 and (image == 30).all()
    assert label.tolist() == [1] and dataset.labels.tolist() == [0, 1]


def test_notebooks_own_transform_works(folder):
    from paddle.vision.transforms import Compose, Normalize, Resize, ToTensor
    transform = Compose([Resize(size=(24, 24)), ToTensor(), Normalize([10.0] * 3, [2.0] * 3, data_format="CHW")])
    paths = write_lists({"train": [("A/2.png", 0)]}, folder)
    image, _ = CovidDataset(folder, paths["train"], transform, class_names=("A", "B"))[0]
    assert list(image.shape) == [3, 24, 24] and np.allclose(np.asarray(image), 5.0)


@pytest.mark.parametrize("line, sentence", [
    ("A/2.png", "line 1: 'A/2.png' is not `FOLDER/NAME INDEX`"),
    ("A/2.png 2", "index from 0 to 1"),
    ("A/2.png x", "index from 0 to 1"),
    ("A/9.png 0", r"line 1: .*9\.png does not exist"),
])
def test_bad_lines_are_named(folder, line, sentence):
    (folder / "list.txt").write_text(line + "\n")
    with pytest.raises(InputError, match=sentence):
        CovidDataset(folder, folder / "list.txt", class_names=("A", "B"))


def test_patients_need_their_columns(tmp_path):
    (tmp_path / "sources.csv").write_text("file,person\na.png,1\n")
    with pytest.raises(InputError, match="needs the columns `file` and `patient`"):
        read_patients(tmp_path / "sources.csv")


def test_a_list_names_an_image_once(tmp_path):
    (tmp_path / "list.txt").write_text("a b.png 0\nc.png 1\na b.png 0\n")
    with pytest.raises(InputError, match="line 3: a b.png is listed already in line 1"):
        read_labels(tmp_path / "list.txt", ["x", "y"])


def test_patients_for_eval(tmp_path):
    recipe = CovidResNetRecipe()
    (tmp_path / "sources.csv").write_text("file,patient\nA/1.png,p1\nA/2.png,p1\nA/3.png,\n")
    names = ["A/2.png", "A/1.png", "A/3.png", "B/1.png"]

    def patients(**options):
        return recipe.patients(SimpleNamespace(**{"data_dir": None, "patients": None, **options}), names)
    assert patients(data_dir=tmp_path) == patients(patients=tmp_path / "sources.csv") == ["p1", "p1", *names[2:]]
    assert patients() == names and patients(data_dir=tmp_path / "nowhere") == names
    (tmp_path / "sources.csv").write_text("file,patient\nZ/1.png,p1\n")
    with pytest.raises(InputError, match="patient of none of the images"):
        patients(data_dir=tmp_path)


def test_published_figures_are_the_notebooks():
    column, = CovidResNetRecipe.published_figures
    assert column.images == 2119 and column.values["accuracy"] == 0.965 and column.values["F1_LungOpacity"] == 0.947
    for name in CovidResNetRecipe.class_names:
        precision, recall, f1 = (column.values[f"{figure}_{name}"] for figure in ("precision", "recall", "F1"))
        assert f1 == pytest.approx(2 * precision * recall / (precision + recall), abs=1.1e-3)


def test_mean_std_as_the_notebook_averages_them(tmp_path):
    save_picture(tmp_path / "a.png", np.full((4, 4, 3), 10, np.uint8))
    save_picture(tmp_path / "b.png", np.repeat(np.array([[0, 100]], np.uint8)[..., None], 3, axis=2))
    mean, std = get_mean_std([tmp_path / "a.png", tmp_path / "b.png"])
    assert mean.tolist() == [30, 30, 30] and std.tolist() == [25, 25, 25]     # (10 + 50) / 2, (0 + 50) / 2
    with pytest.raises(InputError, match="empty"):
        get_mean_std([])


# ------------------------------------------------------------------ the notebook's GradCAM

def test_gradcam_writes_a_picture_and_leaves_the_model_alone(tmp_path):
    paddle.seed(0)
    model = ResNet(18, 4)
    model.train()
    before = {key: value.numpy().copy() for key, value in model.state_dict().items()}
    image = np.random.default_rng(0).integers(0, 255, (120, 100, 3), dtype=np.uint8)
    gradcam = GradCAM(model, "block.7")
    picture = gradcam.save(image, file=tmp_path / "out" / "cam.png")
    assert picture.shape == (224, 224, 3) and np.array_equal(cv2.imread(str(tmp_path / "out/cam.png")), picture)
    assert np.array_equal(read_image(tmp_path / "out/cam.png"), picture[..., ::-1])
    assert not np.array_equal(picture, gradcam.save(image, file=tmp_path / "other.png", target=0)) or \
        not np.array_equal(picture, gradcam.save(image, file=tmp_path / "other.png", target=1))
    assert model.training and all(np.array_equal(before[key], value.numpy())
                                  for key, value in model.state_dict().items())


def test_gradcam_names_close_layers(capsys):
    model = ResNet(18, 4)
    with pytest.raises(InputError, match=r"block\.7"):
        GradCAM(model, "block.77")
    GradCAM.show_network(model)
    shown = capsys.readouterr().out
    assert re.search(r"^block\.7 +BasicBlock$", shown, re.M) and re.search(r"^fc +Linear$", shown, re.M)
