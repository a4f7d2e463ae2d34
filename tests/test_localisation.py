"""Peaks and boxes, by hand."""
import cv2
import numpy as np
import pytest

from cxr.cam.regions import draw_boxes, otsu, peak
from cxr.data.boxes import coverage, scale_box
from cxr.localisation.measures import FIXED, OTSU, THRESHOLDS, chance, gaussian, hits, judge, judge_uniform

LEVELS = ("region_iou", "region_iobb", "box_iou", "box_iobb")


def test_peak_hits_the_box_it_lies_in():
    cam = np.zeros((4, 6))
    cam[2, 3] = 1
    assert peak(cam) == (3.5, 2.5)
    assert hits(cam, (3, 2, 1, 1)) and hits(cam, (0, 0, 6, 4))
    assert not hits(cam, (4, 2, 1, 1)) and not hits(cam, (3, 0, 1, 2))


def test_chance_is_the_share_of_pixels_in_the_box():
    assert chance((0, 0, 3, 2), (4, 6)) == 6 / 24
    assert chance((5, 3, 10, 10), (4, 6)) == 1 / 24                           # cut by the border
    everywhere = [hits(np.eye(24)[i].reshape(4, 6), (1, 1, 2, 2)) for i in range(24)]
    assert np.mean(everywhere) == chance((1, 1, 2, 2), (4, 6)) == 4 / 24


def test_box_in_a_resized_image():
    assert scale_box((10, 20, 30, 40), (100, 200), (50, 50)) == (2.5, 10, 7.5, 20)


def test_tolerance_is_the_distance_to_the_box():
    cam = np.zeros((40, 40))
    cam[20, 20] = 1                                                           # at (20.5, 20.5)
    beside, corner = (24.5, 0, 5, 40), (23.5, 24.5, 5, 5)
    assert not hits(cam, beside) and not hits(cam, beside, 3.9) and hits(cam, beside, 4)
    assert not hits(cam, corner, 4.9) and hits(cam, corner, 5)                # 3, 4, 5
    assert not hits(cam, (10.5, 0, 10, 40)) and hits(cam, (20.5, 0, 10, 40))  # a box ends before its right edge


def test_a_perfect_map_scores_one_and_its_complement_none():
    box = (5, 8, 12, 6)
    perfect = judge(coverage([box], (32, 32)).astype("float32"), [box])
    assert perfect.hit == perfect.near == perfect.mass == 1
    for name in LEVELS:
        assert getattr(perfect, name) == pytest.approx(1)
    assert (perfect.parts == 1).all()
    opposite = judge(1 - coverage([box], (32, 32)).astype("float32"), [box], tolerance=0)
    assert opposite.hit == opposite.near == opposite.mass == 0
    assert not opposite.region_iou.any() and not opposite.region_iobb.any()
    # A box drawn around all but the finding still holds the finding: its IoU is the finding's share of the area.
    assert opposite.box_iou == pytest.approx(72 / 1024)


def test_figures_by_hand():
    cam = np.zeros((10, 10), np.float32)
    cam[2:4, 2:6] = 0.8                                                       # 8 pixels, 4 of them in the box
    cam[2, 2] = 1.0                                                           # the peak, beside the box
    cam[8, 8] = 0.6                                                           # a part of its own
    judged = judge(cam, [(4, 2, 4, 4)], tolerance=2)
    assert judged.hit == 0 and judged.near == 1                               # (2.5, 2.5) is 1.5 from x = 4
    total = 7 * 0.8 + 1 + 0.6
    assert judged.mass == pytest.approx(4 * 0.8 / total)
    assert judged.region_iou[FIXED] == pytest.approx(4 / (9 + 16 - 4)) and judged.region_iobb[FIXED] == 4 / 9
    assert judged.box_iou[FIXED] == pytest.approx(4 / (8 + 16 - 4)) and judged.box_iobb[FIXED] == 0.5
    assert judged.parts[FIXED] == 2
    high = list(THRESHOLDS).index(0.9)
    assert judged.region_iou[high] == judged.box_iou[high] == 0 and judged.parts[high] == 1
    assert draw_boxes(cam, 0.5) == [((2, 2, 4, 2), 1.0), ((8, 8, 1, 1), pytest.approx(0.6))]
    assert draw_boxes(cam, 0.9) == [((2, 2, 1, 1), 1.0)]


def test_several_boxes_of_one_finding():
    cam = np.zeros((10, 10), np.float32)
    cam[6:9, 6:9] = 1
    boxes = [(0, 0, 3, 3), (6, 6, 3, 3)]
    judged = judge(cam, boxes)
    assert judged.hit == judged.mass == 1 and judged.box_iou[FIXED] == 1      # with the box that it meets
    assert judged.region_iou[FIXED] == pytest.approx(9 / 18)


def test_a_finding_outside_the_view_is_missed():
    judged = judge(np.eye(8, dtype=np.float32), [])
    assert (judged.hit, judged.near, judged.mass) == (0, 0, 0)
    assert not any(getattr(judged, name).any() for name in LEVELS)


def test_a_flat_map_misses_and_has_no_mass():
    for flat in (np.zeros((8, 8), np.float32), np.ones((8, 8), np.float32)):
        judged = judge(flat, [(0, 0, 8, 8)])
        assert judged.hit == judged.near == 0 and np.isnan(judged.mass) and not judged.box_iou.any()
        assert draw_boxes(flat, 0.5) == []


def test_otsu_is_opencv_s_and_separates_two_levels():
    cam = np.zeros((20, 20), np.float32)
    cam[:10] = 0.2
    cam[4:8, 4:8] = 0.9
    assert 0.2 / 0.9 < otsu(cam) < 1
    judged = judge(cam, [(4, 4, 4, 4)])
    assert judged.region_iou[OTSU] == 1 and judged.region_iou[0] < 0.2        # 0.05 of the peak takes the rest too
    smooth = cv2.GaussianBlur(np.random.default_rng(0).random((50, 50)).astype("float32"), (0, 0), 3)
    smooth = smooth - smooth.min()
    levels = np.rint(255 * smooth / smooth.max()).astype(np.uint8)
    theirs = cv2.threshold(levels, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1] > 0
    assert ((smooth >= otsu(smooth) * smooth.max()) == theirs).all()


def test_uniform_map_is_chance():
    box = (3, 2, 5, 4)
    uniform = judge_uniform([box], (16, 16), tolerance=2)
    assert uniform.hit == chance(box, (16, 16)) == 20 / 256
    assert uniform.mass == pytest.approx(20 / 256) and (uniform.region_iou == uniform.mass).all()
    near = np.mean([hits(np.eye(256)[i].reshape(16, 16), box, 2) for i in range(256)])
    assert uniform.near == near > uniform.hit
    assert judge_uniform([], (16, 16)).near == 0


def test_a_gaussian_falls_to_a_half_at_the_edges_of_its_box():
    cam = gaussian((10.5, 20.5, 20, 10), (60, 60))                            # its edges are centres of pixels
    assert cam[25, 20] == 1 == cam.max()
    assert cam[25, 10] == cam[25, 30] == cam[20, 20] == cam[30, 20] == pytest.approx(0.5)
