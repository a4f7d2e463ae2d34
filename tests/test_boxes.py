"""Expert boxes: read as published, and carried the road that the pixels take."""
import cv2
import numpy as np
import pytest

from cxr.data.boxes import ExpertBox, Geometry, clip, coverage, iobb, iou, overlap, read_boxes, scale_box
from cxr.data.transforms import Preprocess
from cxr.errors import InputError

NIH = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
OURS = "file,label,x,y,w,h\n"


def write(folder, text):
    path = folder / "boxes.csv"
    path.write_bytes(text.encode())
    return path


def test_list_as_published(tmp_path):
    rows = "00000001_000.png,Infiltrate,225.08,547.5,86.78,79\n00000001_000.png,Mass,1,2,3,4,,,\n\n"
    expected = [ExpertBox("00000001_000.png", "Infiltrate", (225.08, 547.5, 86.78, 79.0)),
                ExpertBox("00000001_000.png", "Mass", (1.0, 2.0, 3.0, 4.0))]
    assert read_boxes(write(tmp_path, NIH + rows)) == expected
    assert read_boxes(write(tmp_path, "\ufeff" + OURS.replace("\n", "\r\n") + rows)) == expected


def test_the_49_boxes(data_dir):
    boxes = read_boxes(data_dir / "nih14" / "BBox_List_2017.csv")
    assert len(boxes) == 49 and len({row.image for row in boxes}) == 44
    assert boxes[0] == ExpertBox("00000150_002.png", "Pneumonia", (601.4, 595.98, 215.64, 180.96))
    assert {row.label for row in boxes} >= {"Infiltrate", "Nodule"}


@pytest.mark.parametrize("text, line, sentence", [
    ("", 1, "expected the header"),
    ("file,x,y,w,h\n", 1, "expected the header file,label,x,y,w,h"),
    (OURS + "a.png,Nodule,1,2,3,4\nb.png,Nodule,1,2,3\n", 3, "expected 6 fields (image,label,x,y,w,h), got 5"),
    (OURS + "a.png,Nodule,1,2,3,4,5\n", 2, "got 7"),
    (OURS + "a.png,Nodule,1,2,three,4\n", 2, "1,2,three,4 is not four numbers"),
    (OURS + "a.png,Nodule,1,2,0,4\n", 2, "w, h > 0"),
    (OURS + "a.png,Nodule,nan,2,3,4\n", 2, "finite"),
    (OURS + "a.png,Nodule,1,2,3,4\na.png,Nodule,1,2,3,4\n", 3, "this box of a.png stands there twice"),
    (OURS + ",Nodule,1,2,3,4\n", 2, "name of the image or of the class is empty"),
])
def test_bad_rows_are_named(tmp_path, text, line, sentence):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_boxes(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ") and sentence in str(caught.value)


def test_no_list(tmp_path):
    with pytest.raises(InputError, match="nowhere.csv cannot be read"):
        read_boxes(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="holds no boxes"):
        read_boxes(write(tmp_path, NIH))


SHAPES = [(256, 256), (1024, 1024), (300, 512), (512, 300), (401, 255), (257, 400), (224, 300)]
PREPROCESSES = [Preprocess(), Preprocess(antialias=False), Preprocess(resize=(224, 224), crop=None),
                Preprocess(resize=(320, 256), crop=224)]


@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=range(len(PREPROCESSES)))
@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_goes_where_its_pixels_go(shape, preprocess):
    height, width = shape
    box = (round(0.3 * width), round(0.4 * height), round(0.3 * width), round(0.2 * height))
    left, top, across, down = box
    image = np.zeros((*shape, 3), np.uint8)
    image[top:top + down, left:left + across] = 255
    view = preprocess.view(image)
    geometry = Geometry.of(preprocess, shape)
    assert geometry.view == view.shape[:2]
    carried = geometry.to_view(box)
    # In the sum the blur at both ends cancels out; OpenCV skips pixels when it shrinks fourfold, so not quite.
    bright = view[..., 0] / 255
    for axis, place in (0, 0), (1, 1):
        profile = bright.max(axis=axis)
        centre = ((np.arange(len(profile)) + 0.5) * profile).sum() / profile.sum()
        assert centre == pytest.approx(carried[place] + carried[place + 2] / 2, abs=0.3)
        assert profile.sum() == pytest.approx(carried[place + 2], abs=0.3)


@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=range(len(PREPROCESSES)))
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_is_exact(shape, preprocess):
    geometry = Geometry.of(preprocess, shape)
    for box in np.random.default_rng(0).uniform(-50, 900, (50, 4)):
        assert geometry.to_image(geometry.to_view(box)) == pytest.approx(tuple(box), rel=1e-12, abs=1e-10)


def test_carried_by_hand():
    # 1024 -> 256 on disk; shorter side 256 -> 256, centre crop 224 takes 16 off each side.
    in_file = scale_box((400, 512, 100, 60), (1024, 1024), (256, 256))
    assert in_file == (100, 128, 25, 15)
    assert Geometry.of(Preprocess(), (256, 256)).to_view(in_file) == (84, 112, 25, 15)
    # 300 x 512 (H x W): int(256 * 512 / 300) = 436 wide, corner (16, 106).
    geometry = Geometry.of(Preprocess(), (300, 512))
    assert (geometry.resized, geometry.corner) == ((256, 436), (16, 106))
    assert geometry.to_view((256, 150, 51.2, 30)) == pytest.approx((112, 112, 43.6, 25.6))
    # The boxes' own image is square, the file is not: each axis has its scale.
    assert scale_box((512, 512, 512, 256), (1024, 1024), (300, 512)) == (256, 150, 256, 75)


def test_clip():
    assert clip((-5, 2, 10, 4), (8, 8)) == (0, 2, 5, 4)
    assert clip((1, 2, 3, 4), (8, 8)) == (1, 2, 3, 4)
    assert clip((8, 0, 3, 3), (8, 8)) is None and clip((0, -3, 3, 3), (8, 8)) is None


def test_overlaps_by_hand():
    one, other = (0, 0, 4, 4), (2, 2, 4, 2)
    assert overlap(one, other) == 4
    assert iou(one, other) == 4 / 20 and iobb(other, one) == 0.5 and iobb(one, other) == 0.25
    assert iou(one, one) == 1 and iou(one, (4, 0, 4, 4)) == 0


def test_coverage_is_the_share_of_each_pixel():
    assert coverage([(0.5, 1, 1, 1.25)], (3, 3)) == pytest.approx(np.array([[0, 0, 0], [.5, .5, 0], [.125, .125, 0]]))
    assert coverage([(0, 0, 1, 1), (2, 2, 1, 1)], (3, 3)).sum() == 2
    assert coverage([], (3, 3)).sum() == 0
    drawn = cv2.rectangle(np.zeros((20, 30)), (3, 4), (3 + 7 - 1, 4 + 5 - 1), 1, cv2.FILLED)
    assert (coverage([(3, 4, 7, 5)], (20, 30)) == drawn).all()
