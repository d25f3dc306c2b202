import numpy as np
import pytest
import shapely
from affine import Affine

from rtsx.footprints.geometry import place, unite


def boxes(*corners):
    return np.array([shapely.box(*corner) for corner in corners], object)


def test_a_seam_leaves_no_vertex_behind():
    united = unite(boxes((0, 0, 2, 3), (2, 0, 5, 3), (9, 9, 10, 10)), np.array([0, 0, 1]))
    assert united[0].equals(shapely.box(0, 0, 5, 3))
    assert shapely.get_num_coordinates(united).tolist() == [5, 5]


def test_pieces_that_meet_in_a_corner_become_parts():
    (united,) = unite(boxes((0, 0, 1, 1), (1, 1, 2, 2)), np.array([0, 0]))
    assert united.geom_type == "MultiPolygon"
    assert united.is_valid


def test_a_ring_of_pieces_keeps_its_hole():
    (united,) = unite(boxes((0, 0, 3, 1), (0, 1, 1, 2), (2, 1, 3, 2), (0, 2, 3, 3)), np.zeros(4, np.int64))
    assert united.equals(shapely.box(0, 0, 3, 3) - shapely.box(1, 1, 2, 2))
    assert shapely.get_num_coordinates(united) == 10


def test_nothing_united_is_nothing():
    assert unite(np.empty(0, object), np.empty(0, np.int64)).tolist() == []


@pytest.mark.parametrize("step", [-3, 3])
def test_pixels_go_to_the_ground_in_normal_order(step):
    (placed,) = place(boxes((0, 0, 2, 1)), Affine(4, 0, 100, 0, step, 50))
    assert placed.bounds == (100, min(50, 50 + step), 108, max(50, 50 + step))
    assert placed.equals_exact(placed.normalize())
