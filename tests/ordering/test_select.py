""""""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from pyproj import Geod
from shapely import MultiPolygon, Polygon, box
from shapely.affinity import translate

from rtsx.errors import OrderError
from rtsx.ordering import OrderCriteria, OrderLimits, Scene, select_scenes
from rtsx.ordering.select import EqualAreaProjection

DAY = datetime(2024, 7, 10, 20, tzinfo=UTC)
REGION = box(0, 60, 2, 61)


def scene(name: str, west: float, east: float, **fields) -> Scene:
    return Scene(**{"id": name, "footprint": box(west, 59.9, east, 61.1), "time": DAY, "cloud_cover": 0.0} | fields)


def ids(plan) -> set[str]:
    return {one.scene.id for one in plan.chosen}


def test_the_clearer_of_two_equals_is_taken():
    assert ids(select_scenes([scene("a", 0, 2, cloud_cover=20), scene("b", 0, 2, cloud_cover=5)], REGION)) == {"b"}
    assert ids(select_scenes([scene("a", 0, 2, clear_percent=70), scene("b", 0, 2, clear_percent=90)], REGION)) == {"b"}


def test_equals_go_to_the_smaller_id():
    assert ids(select_scenes([scene("b", 0, 2), scene("a", 0, 2)], REGION)) == {"a"}


def test_the_wished_date_decides():
    near, far = scene("near", 0, 2, time=DAY + timedelta(days=2)), scene("a-far", 0, 2, time=DAY + timedelta(days=20))
    assert ids(select_scenes([near, far], REGION)) == {"a-far"}
    assert ids(select_scenes([near, far], REGION, wishes=OrderCriteria(around=date(2024, 7, 10)))) == {"near"}


def test_neighbours_of_one_day_are_preferred_and_only_where_wished():
    first = scene("first", 0, 1.3)
    other = scene("a-other-day", 0.9, 2, time=DAY + timedelta(days=3))
    same = scene("same-day", 0.9, 2, time=DAY + timedelta(seconds=4))
    assert ids(select_scenes([first, other, same], REGION)) == {"first", "same-day"}
    assert ids(select_scenes([first, other, same], REGION, wishes=OrderCriteria(same_day=0))) == {
        "a-other-day",
        "first",
    }


def test_strips_join_across_midnight():
    late = DAY.replace(hour=23, minute=59, second=59)
    first = scene("first", 0, 1.3, time=late, strip="7")
    other = scene("a-other", 0.9, 2, time=late + timedelta(seconds=3))
    same = scene("same-strip", 0.9, 2, time=late + timedelta(seconds=3), strip="7")
    assert ids(select_scenes([first, other, same], REGION)) == {"first", "same-strip"}


def test_what_later_scenes_make_redundant_is_dropped():
    # Greedy takes the middle first, because it is the cheapest ground; the two halves then make it redundant.
    scenes = [scene("middle", 0.5, 1.5), scene("west", 0, 1.0, cloud_cover=1), scene("east", 1.0, 2, cloud_cover=1)]
    assert ids(select_scenes(scenes, REGION)) == {"west", "east"}


def test_clipping_pays_for_the_region_only():
    wide = scene("wide", -2, 4)
    whole, clipped = select_scenes([wide], REGION), select_scenes([wide], REGION, clip=True)
    assert clipped.cost_km2 == pytest.approx(clipped.region_km2)
    assert whole.cost_km2 == pytest.approx(whole.region_km2 * 3 * 1.2, rel=0.01)


def test_the_reason_for_the_end_is_told():
    scenes = [scene("west", 0, 1), scene("east", 1, 2)]
    assert select_scenes(scenes, REGION).stop == "complete"
    assert select_scenes(scenes, REGION, limits=OrderLimits(max_scenes=1)).stop == "scenes"
    assert select_scenes(scenes, REGION, limits=OrderLimits(coverage=0.4)).stop == "coverage"
    cost = select_scenes(scenes, REGION, limits=OrderLimits(max_scenes=1)).cost_km2
    cut = select_scenes(scenes, REGION, limits=OrderLimits(budget_km2=1.5 * cost))
    assert (cut.stop, len(cut.chosen)) == ("budget", 1)


def test_a_plan_tells_days_overlap_and_what_is_missing():
    scenes = [scene("west", 0, 1), scene("mid", 0.9, 1.5, time=DAY + timedelta(days=1))]
    plan = select_scenes(scenes, REGION)
    assert plan.days == {"2024-07-10": 1, "2024-07-11": 1}
    assert plan.coverage == pytest.approx(0.75, abs=1e-3)
    assert plan.overlap_km2 == pytest.approx(plan.region_km2 * 0.05, rel=1e-2)
    assert plan.missing.bounds == pytest.approx((1.5, 60, 2, 61), abs=2e-3)
    assert "2 of 2 scenes, days: 2, cover 75.0%" in str(plan)
    kinds = [feature["properties"]["kind"] for feature in plan.geojson()["features"]]
    assert kinds == ["scene", "scene", "missing", "region"]


def test_full_coverage_leaves_no_ground_missing():
    plan = select_scenes([scene("all", -1, 3)], REGION)
    assert plan.missing.is_empty
    assert plan.coverage == 1


def test_no_candidate_is_a_plan_of_nothing():
    for candidates in ([], [scene("far", 100, 101)]):
        plan = select_scenes(candidates, REGION)
        assert (plan.chosen, plan.covered_km2, plan.cost_km2) == ((), 0, 0)


def test_what_cannot_be_is_refused():
    with pytest.raises(OrderError, match=r"\['a'\] came more than once"):
        select_scenes([scene("a", 0, 1), scene("a", 1, 2)], REGION)
    with pytest.raises(OrderError, match="polygon with an area"):
        select_scenes([], MultiPolygon())
    with pytest.raises(OrderError, match="cloud_cover is a percentage"):
        scene("a", 0, 1, cloud_cover=-1)
    with pytest.raises(OrderError, match="coverage is a share"):
        OrderLimits(coverage=90)
    with pytest.raises(OrderError, match="Weight overlap"):
        OrderCriteria(overlap=-1)


def test_ground_bought_twice_counts_against_a_scene():
    # Once `first` is taken, `inside` costs less for its new ground, and `beside` has nothing twice.
    first = scene("first", 0, 1.0, cloud_cover=0)
    inside = scene("inside", 0.5, 2, cloud_cover=0)
    beside = scene("beside", 1.0, 2, cloud_cover=14)
    plain = OrderCriteria(same_day=0, scene_km2=0, overlap=0)
    assert ids(select_scenes([first, inside, beside], REGION, wishes=plain, clip=True)) == {"first", "inside"}
    strict = OrderCriteria(same_day=0, scene_km2=0, overlap=1)
    assert ids(select_scenes([first, inside, beside], REGION, wishes=strict, clip=True)) == {"first", "beside"}


def test_room_that_thinning_makes_is_used():
    # The middle is taken first and made redundant by the halves; without a second round two scenes would be left of three.
    scenes = [scene("middle", 0.5, 1.5), scene("west", 0, 1.0, cloud_cover=1), scene("east", 1.0, 1.9, cloud_cover=1)]
    scenes.append(scene("rest", 1.9, 2, cloud_cover=50))
    assert ids(select_scenes(scenes, REGION, limits=OrderLimits(max_scenes=3))) == {"west", "east", "rest"}


def geodesic(geometry) -> float:
    return abs(Geod(ellps="WGS84").geometry_area_perimeter(geometry.segmentize(0.02))[0])


@pytest.mark.parametrize("lat", [-40, 0, 57, 72, 84])
def test_areas_are_true_far_from_the_centre(lat):
    plane = EqualAreaProjection.around(box(100, 60, 102, 61))
    cell = box(80, lat, 83, lat + 1)
    # A straight edge in degrees is the one a GeoJSON says, so the reference follows it too.
    assert plane.place(cell).area == pytest.approx(geodesic(cell), rel=2e-5)


@pytest.mark.parametrize("west", [-181.0, -180.0, 179.0])
def test_the_antimeridian_is_no_edge(west):
    inland = EqualAreaProjection.around(box(20, 70, 22, 71)).place(box(20, 70, 22, 71)).area
    crossing = box(west, 70, west + 2, 71)
    split = MultiPolygon([box(179, 70, 180, 71), box(-180, 70, -179, 71)])
    assert EqualAreaProjection.around(crossing).place(crossing).area == pytest.approx(inland, rel=1e-7)
    assert EqualAreaProjection.around(split).place(split).area == pytest.approx(inland, rel=1e-7)


def test_a_footprint_that_was_not_split_is_the_split_one():
    plane = EqualAreaProjection.around(box(178, 69, 182, 72))
    naive = Polygon([(179, 70), (-179, 70), (-179, 71), (179, 71)])
    split = MultiPolygon([box(179, 70, 180, 71), box(-180, 70, -179, 71)])
    difference = plane.place_footprint(naive).symmetric_difference(plane.place_footprint(split)).area
    assert difference < 1e-6 * plane.place_footprint(split).area


def test_a_ring_around_the_pole_covers_it():
    ring = Polygon([(lon, 85) for lon in range(-180, 180, 30)])
    cap = box(-180, 85, 180, 90)
    plane = EqualAreaProjection.around(cap)
    assert plane.place_footprint(ring).area == pytest.approx(plane.place(cap).area, rel=1e-7)


def test_ground_comes_back_with_its_holes_and_split():
    ground = box(178, 70, 184, 73).difference(box(179, 71, 181, 72))
    plane = EqualAreaProjection.around(ground)
    back = plane.lonlat(plane.place(ground))
    assert back.bounds[0] == pytest.approx(-180)
    assert back.bounds[2] == pytest.approx(180)
    expected = MultiPolygon(
        [*_parts(ground & box(170, 0, 180, 90)), *_parts(translate(ground & box(180, 0, 190, 90), -360))]
    )
    assert back.symmetric_difference(expected).area < 1e-3 * expected.area


def _parts(geometry):
    return geometry.geoms if isinstance(geometry, MultiPolygon) else [geometry]


def test_the_centre_of_the_whole_arctic_is_the_pole():
    assert EqualAreaProjection.around(box(-180, 60, 180, 90)).lat == 90
    assert np.isclose(EqualAreaProjection.around(box(179, 60, 181, 62)).lon % 360, 180, atol=0.5)


def test_no_ground_is_an_error():
    with pytest.raises(OrderError, match="has to be a polygon with an area"):
        EqualAreaProjection.around(box(0, 0, 1, 1).boundary)
