"""Peaks and boxes, by hand."""
import numpy as np

from cxr.localisation import chance, hits, peak, scale_box


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
