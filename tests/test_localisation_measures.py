"""Peaks and boxes, by hand."""
import cv2
import numpy as np
import pytest

from cxr.cam.regions import draw_boxes, otsu, peak
from cxr.data.boxes import coverage, scale_box
from cxr.localisation.measures import (
    FIXED,
    OTSU,
    THRESHOLDS,
    chance,
    gaussian,
    measure_map,
    measure_uniform_map,
    peak_in_box,
)

LEVELS = ("region_iou", "region_iobb", "box_iou", "box_iobb")


def test_peak_hits_the_box_it_lies_in():
    cam = np.zeros((4, 6))
    cam[2, 3] = 1
    assert peak(cam) == (3.5, 2.5)
    assert peak_in_box(cam, (3, 2, 1, 1)) and peak_in_box(cam, (0, 0, 6, 4))
    assert not peak_in_box(cam, (4, 2, 1, 1)) and not peak_in_box(cam, (3, 0, 1, 2))


def test_chance_is_the_share_of_pixels_in_the_box():
    assert chance((0, 0, 3, 2), (4, 6)) == 6 / 24
    assert chance((5, 3, 10, 10), (4, 6)) == 1 / 24                           # cut by the border
    everywhere = [peak_in_box(np.eye(24)[i].reshape(4, 6), (1, 1, 2, 2)) for i in range(24)]
    assert np.mean(everywhere) == chance((1, 1, 2, 2), (4, 6)) == 4 / 24


def test_box_in_a_resized_image():
    assert scale_box((10, 20, 30, 40), (100, 200), (50, 50)) == (2.5, 10, 7.5, 20)


def test_tolerance_is_the_distance_to_the_box():
    cam = np.zeros((40, 40))
    cam[20, 20] = 1                                                           # at (20.5, 20.5)
    beside, corner = (24.5, 0, 5, 40), (23.5, 24.5, 5, 5)
    assert not peak_in_box(cam, beside) and not peak_in_box(cam, beside, 3.9) and peak_in_box(cam, beside, 4)
    assert not peak_in_box(cam, corner, 4.9) and peak_in_box(cam, corner, 5)  # 3, 4, 5
    # A box ends before its right edge.
    assert not peak_in_box(cam, (10.5, 0, 10, 40)) and peak_in_box(cam, (20.5, 0, 10, 40))


def test_a_perfect_map_scores_one_and_its_complement_none():
    box = (5, 8, 12, 6)
    perfect = measure_map(coverage([box], (32, 32)).astype("float32"), [box])
    assert perfect.hit == perfect.near == perfect.mass == 1
    for name in LEVELS:
        assert getattr(perfect, name) == pytest.approx(1)
    assert (perfect.parts == 1).all()
    opposite = measure_map(1 - coverage([box], (32, 32)).astype("float32"), [box], tolerance=0)
    assert opposite.hit == opposite.near == opposite.mass == 0
    assert not opposite.region_iou.any() and not opposite.region_iobb.any()
    # A box drawn around all but the finding still holds the finding: its IoU is the finding's share of the area.
    assert opposite.box_iou == pytest.approx(72 / 1024)


def test_figures_by_hand():
    cam = np.zeros((10, 10), np.float32)
    cam[2:4, 2:6] = 0.8                                                       # 8 pixels, 4 of them in the box
    cam[2, 2] = 1.0                                                           # the peak, beside the box
    cam[8, 8] = 0.6                                                           # a part of its own
    measures = measure_map(cam, [(4, 2, 4, 4)], tolerance=2)
    assert measures.hit == 0 and measures.near == 1                               # (2.5, 2.5) is 1.5 from x = 4
    total = 7 * 0.8 + 1 + 0.6
    assert measures.mass == pytest.approx(4 * 0.8 / total)
    assert measures.region_iou[FIXED] == pytest.approx(4 / (9 + 16 - 4)) and measures.region_iobb[FIXED] == 4 / 9
    assert measures.box_iou[FIXED] == pytest.approx(4 / (8 + 16 - 4)) and measures.box_iobb[FIXED] == 0.5
    assert measures.parts[FIXED] == 2
    high = list(THRESHOLDS).index(0.9)
    assert measures.region_iou[high] == measures.box_iou[high] == 0 and measures.parts[high] == 1
    assert draw_boxes(cam, 0.5) == [((2, 2, 4, 2), 1.0), ((8, 8, 1, 1), pytest.approx(0.6))]
    assert draw_boxes(cam, 0.9) == [((2, 2, 1, 1), 1.0)]


def test_several_boxes_of_one_finding():
    cam = np.zeros((10, 10), np.float32)
    cam[6:9, 6:9] = 1
    boxes = [(0, 0, 3, 3), (6, 6, 3, 3)]
    measures = measure_map(cam, boxes)
    assert measures.hit == measures.mass == 1 and measures.box_iou[FIXED] == 1      # with the box that it meets
    assert measures.region_iou[FIXED] == pytest.approx(9 / 18)


def test_a_finding_outside_the_view_is_missed():
    measures = measure_map(np.eye(8, dtype=np.float32), [])
    assert (measures.hit, measures.near, measures.mass) == (0, 0, 0)
    assert not any(getattr(measures, name).any() for name in LEVELS)


def test_a_flat_map_misses_and_has_no_mass():
    for flat in (np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32)):
        measures = measure_map(flat, [(0, 0, 8, 8)])
        assert measures.hit == measures.near == 0 and np.isnan(measures.mass) and not measures.box_iou.any()
        assert draw_boxes(flat, 0.5) == []


def test_otsu_is_opencv_s_and_separates_two_levels():
    cam = np.zeros((20, 20), np.float32)
    cam[:10] = 0.2
    cam[4:8, 4:8] = 0.9
    assert 0.2 / 0.9 < otsu(cam) < 1
    measures = measure_map(cam, [(4, 4, 4, 4)])
    assert measures.region_iou[OTSU] == 1 and measures.region_iou[0] < 0.2        # 0.05 of the peak takes the rest too
    smooth = cv2.GaussianBlur(np.random.default_rng(0).random((50, 50)).astype("float32"), (0, 0), 3)
    smooth = smooth - smooth.min()
    levels = np.rint(255 * smooth / smooth.max()).astype(np.uint8)
    theirs = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1] > 0
    assert ((smooth >= otsu(smooth) * smooth.max()) == theirs).all()


def test_uniform_map_is_chance():
    box = (3, 2, 5, 4)
    uniform = measure_uniform_map([box], (16, 16), tolerance=2)
    assert uniform.hit == chance(box, (16, 16)) == 20 / 256
    assert uniform.mass == pytest.approx(20 / 256) and (uniform.region_iou == uniform.mass).all()
    near = np.mean([peak_in_box(np.eye(256)[i].reshape(16, 16), box, 2) for i in range(256)])
    assert uniform.near == near > uniform.hit
    assert measure_uniform_map([], (16, 16)).near == 0


def test_a_gaussian_falls_to_a_half_at_the_edges_of_its_box():
    cam = gaussian((10.5, 20.5, 20, 10), (60, 60))                            # its edges are centres of pixels
    assert cam[25, 20] == 1 == cam.max()
    assert cam[25, 10] == cam[25, 30] == cam[20, 20] == cam[30, 20] == pytest.approx(0.5)
