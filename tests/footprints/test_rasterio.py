import numpy as np
import scipy.ndimage
import shapely

from rtsx.footprints.blocks import trace


def test_outlines_are_valid_and_cover_their_pixels():
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((9, 9)) < rng.choice([0.3, 0.5, 0.7])
        labels, count = scipy.ndimage.label(mask, np.ones((3, 3)), output=np.int32)
        outlines = trace(labels, count, origin=(0, 0))
        assert shapely.is_valid(outlines).all()
        assert shapely.area(outlines).tolist() == np.bincount(labels.ravel())[1:].tolist()


def test_a_hole_stays_a_hole_and_the_origin_is_added():
    labels = np.ones((3, 3), np.int32)
    labels[1, 1] = 0
    (outline,) = trace(labels, 1, origin=(100, 7))
    assert outline.bounds == (7, 100, 10, 103)
    assert [ring.bounds for ring in outline.interiors] == [(8, 101, 9, 102)]


def test_no_objects_no_outlines():
    assert trace(np.zeros((3, 3), np.int32), 0, origin=(0, 0)).tolist() == []
