"""Choosing among real PlanetScope scenes, over real study sites."""

from collections import Counter
from datetime import date, timedelta

import geopandas
import pytest
from shapely import box, union_all
from shapely.affinity import translate

from rtsx.cube.images import Period
from rtsx.ordering import OrderCriteria, OrderLimits, Scene, StacProvider, StaticCatalog, select_scenes
from rtsx.ordering.select import EqualAreaProjection

YEARS = Period(date(2022, 1, 1), date(2025, 12, 31))
WORLD = box(-180, -90, 180, 90)


@pytest.fixture(scope="module")
def scenes(real_data):
    """The eleven PSScene items of Fort McKay: four strips of two or three scenes."""
    catalog = real_data / "stac_json/planet_open_stac/stac/open-canada/ft-mckay/psscene/collection.json"
    return StacProvider(StaticCatalog(str(catalog)), assets=["sr", "udm"]).search(WORLD, YEARS)


def area_km2(plane, geometries) -> float:
    return union_all([plane.place_footprint(one) for one in geometries]).area / 1e6


def test_the_items_are_read(scenes):
    assert len(scenes) == 11
    assert sorted(Counter(scene.day for scene in scenes).values()) == [2, 3, 3, 3]


def test_one_strip_covers_what_one_strip_can(scenes):
    """The overlap of all four dates is taken from one of them."""
    shared = union_all([s.footprint for s in scenes if s.day == scenes[0].day])
    for day in {scene.day for scene in scenes}:
        shared = shared & union_all([s.footprint for s in scenes if s.day == day])
    plan = select_scenes(scenes, shared)
    assert plan.coverage > 0.9999
    assert len(plan.days) == 1
    assert plan.missing.is_empty


def test_all_ground_needs_several_dates_and_no_scene_too_many(scenes):
    ground = union_all([scene.footprint for scene in scenes])
    plan = select_scenes(scenes, ground)
    plane = EqualAreaProjection.around(ground)
    assert plan.covered_km2 == pytest.approx(area_km2(plane, [s.footprint for s in scenes]), rel=1e-4)
    for one in plan.chosen:
        rest = [other.scene.footprint for other in plan.chosen if other is not one]
        assert area_km2(plane, rest) < plan.covered_km2 - 0.009
    thrifty = select_scenes(scenes, ground, limits=OrderLimits(coverage=0.9))
    assert thrifty.cost_km2 < plan.cost_km2
    assert thrifty.coverage >= 0.9


def test_the_wished_date_is_kept_to_where_it_suffices(scenes):
    ground = union_all([s.footprint for s in scenes if s.day == "2022-08-12"]).buffer(-0.02)
    plan = select_scenes(scenes, ground, wishes=OrderCriteria(around=date(2022, 8, 12), days=10))
    assert set(plan.days) == {"2022-08-12"}


def test_every_study_site_is_covered_by_passes_of_real_footprints(scenes, real_data):
    """The footprints as they are on the ground, moved over each site in three passes of five scenes."""
    sites = geopandas.read_file(real_data / "rts_nitze2021" / "study_sites.geojson")
    assert len(sites) == 9
    home = EqualAreaProjection.around(scenes[0].footprint)
    outline = home.place_footprint(scenes[0].footprint)
    for site in sites.geometry:
        plane = EqualAreaProjection.around(site)
        moved = []
        for track in range(3):
            for along in range(5):
                x, y = 18_000 * (track - 1) + 900 * along, 9_000 * (along - 2)
                shape = translate(outline, x, y)
                time = scenes[0].time + timedelta(days=track, seconds=2 * along)
                fields = {"time": time, "cloud_cover": 5.0 * track, "strip": str(track)}
                moved.append(Scene(id=f"{track}{along}", footprint=plane.lonlat(shape), **fields))
        plan = select_scenes(moved, site, clip=True)
        assert plan.coverage > 0.9999, site
        assert plan.region_km2 <= plan.cost_km2 < 1.5 * plan.region_km2
        assert len(plan.days) < 3
