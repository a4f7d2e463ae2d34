"""Train a ResNet18 on 24 X-rays into the folder given, resuming what is there: what tests/test_checkpoint.py kills."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cxr.data.dataset import FolderDataset  # noqa: E402
from cxr.data.transforms import Augment, Preprocess  # noqa: E402
from cxr.runtime import load_paddle  # noqa: E402
from cxr.training.resume import claim  # noqa: E402

paddle = load_paddle()

from covid_resnet.resnet import ResNet  # noqa: E402
from covid_resnet.schedule import CosineWarmup  # noqa: E402
from cxr.training.settings import Settings  # noqa: E402
from cxr.training.trainer import fit  # noqa: E402

EPOCHS, BATCH_SIZE, IMAGES = 2, 4, 24
preprocess = Preprocess(resize=(64, 64), crop=None)


def few(folder, start, stop, transform):
    """The images from `start` to `stop` of each class."""
    whole = FolderDataset(folder, transform=transform)
    chosen = [index for label in (0, 1) for index in (whole.labels == label).nonzero()[0][start:stop]]
    whole.names, whole.paths = ([own[index] for index in chosen] for own in (whole.names, whole.paths))
    whole.labels = whole.labels[chosen]
    return whole


train_set, val_set = (few(Path(sys.argv[1], "chest_xray", "train"), *part)
                      for part in ((0, 12, Augment(preprocess, rotate=20)), (12, 16, preprocess)))
paddle.seed(0)
model = ResNet(18, 2)
settings = Settings(save_dir=Path(sys.argv[2]), epochs=EPOCHS, batch_size=BATCH_SIZE, monitor="accuracy", save_every=0,
                    workers=0)
scheduler = CosineWarmup(0.01, settings.steps_per_epoch(IMAGES), EPOCHS, 1)
optimizer = paddle.optimizer.Momentum(scheduler, parameters=model.parameters())
with claim(settings.save_dir, resume=True) as saved:
    print("begins", flush=True)
    fit(model, train_set, val_set, optimizer, scheduler, settings, {}, saved=saved)
