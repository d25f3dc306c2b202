"""Tracks depend on the outlines of each year alone: not on order, chunks or what comes later; links are those of brute force."""

import dask
import geopandas
import numpy as np
import pandas as pd
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from rtsx.footprints import extract_footprints, track_footprints, track_summary
from tests.footprints.conftest import make_prediction


def maps(seed, years, *, size=24):
    """Levels of each year: blobs that move, grow, split, merge, come and go."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((size + 4, size + 4))
    levels = {}
    for year in years:
        noise = noise + 0.35 * rng.standard_normal(noise.shape)
        smooth = sum(noise[i : i + size, j : j + size] for i in range(5) for j in range(5)) / 5
        levels[year] = np.where(smooth > 0.5, 80, 10)
    return levels


def outline(level, *, chunks=None):
    pred = make_prediction(level)
    with dask.config.set(scheduler="synchronous"):
        return extract_footprints(pred if chunks is None else pred.chunk(y=chunks, x=chunks), min_area_m2=0)


def assert_equal(one, other):
    assert shapely.equals_exact(one.geometry.array, other.geometry.array, tolerance=0).all()
    pd.testing.assert_frame_equal(
        pd.DataFrame(one.drop(columns="geometry")), pd.DataFrame(other.drop(columns="geometry"))
    )


def naive_links(yearly, *, min_overlap, max_gap):
    """Parents of every outline by loops: the same rule, written out."""
    years = sorted(yearly)
    rows = [(number, year, row) for number, year in enumerate(years) for row in yearly[year].itertuples()]
    links, has_later, has_earlier = set(), set(), set()
    for gap in range(max_gap + 1):
        now = set()
        for first, year, one in rows:
            for second, other_year, other in rows:
                if second - first != gap + 1:
                    continue
                names = (f"{year}_{one.footprint_id}", f"{other_year}_{other.footprint_id}")
                shared = one.geometry.intersection(other.geometry).area
                enough = shared > 0 and shared >= (min_overlap - 1e-9) * min(one.geometry.area, other.geometry.area)
                if enough and not (names[0] in has_later and names[1] in has_earlier):
                    now.add(names)
        has_later |= {earlier for earlier, _ in now}
        has_earlier |= {later for _, later in now}
        links |= now
    return links


def stated_links(tracks):
    names = tracks["year"].astype(str) + "_" + tracks["footprint_id"]
    of_parents = {
        (parent, name) for name, listed in zip(names, tracks["parents"], strict=True) for parent in words(listed)
    }
    of_children = {
        (name, child) for name, listed in zip(names, tracks["children"], strict=True) for child in words(listed)
    }
    assert of_parents == of_children
    return of_parents


def words(listed):
    return listed.split(",") if listed else []


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=5, deadline=None)
@given(seeds, st.sampled_from([0.05, 0.2, 0.6, 1.0]), st.integers(0, 2))
def test_links_are_those_of_brute_force(seed, min_overlap, max_gap):
    yearly = {year: outline(level) for year, level in maps(seed, (2019, 2020, 2022, 2023)).items()}
    tracks = track_footprints(yearly, min_overlap=min_overlap, max_gap=max_gap)
    assert stated_links(tracks) == naive_links(yearly, min_overlap=min_overlap, max_gap=max_gap)
    assert len(tracks) == sum(map(len, yearly.values()))


@settings(max_examples=4, deadline=None)
@given(seeds, st.integers(5, 24))
def test_chunks_and_order_change_nothing(seed, chunks):
    levels = maps(seed, (2021, 2022, 2023))
    tracks = track_footprints({year: outline(level) for year, level in levels.items()})
    rng = np.random.default_rng(seed)
    mixed = {year: outline(levels[year], chunks=chunks) for year in rng.permutation(list(levels)).tolist()}
    mixed = {year: table.sample(frac=1, random_state=int(rng.integers(99))) for year, table in mixed.items()}
    assert_equal(track_footprints(mixed), tracks)
    pd.testing.assert_frame_equal(track_summary(track_footprints(mixed)), track_summary(tracks))


@settings(max_examples=4, deadline=None)
@given(seeds, st.integers(0, 2))
def test_a_later_year_renames_no_track(seed, max_gap):
    yearly = {year: outline(level) for year, level in maps(seed, (2020, 2021, 2022, 2023)).items()}
    whole = track_footprints(yearly, max_gap=max_gap)
    for last in (2020, 2021, 2022):
        before = track_footprints({year: table for year, table in yearly.items() if year <= last}, max_gap=max_gap)
        common = whole[whole["year"] <= last].reset_index(drop=True)
        for name in ("track_id", "year", "footprint_id", "event", "parents"):
            assert before[name].tolist() == common[name].tolist()


@settings(max_examples=5, deadline=None)
@given(seeds, st.integers(0, 2))
def test_every_track_is_whole(seed, max_gap):
    """Tracks begin new, go on by links only, and a merger ends in an outline of a living track."""
    yearly = {year: outline(level) for year, level in maps(seed, (2020, 2021, 2022, 2024)).items()}
    tracks = track_footprints(yearly, max_gap=max_gap)
    of = dict(zip(tracks["year"].astype(str) + "_" + tracks["footprint_id"], tracks["track_id"], strict=True))
    merged = [track for listed in tracks["merged_tracks"] for track in words(listed)]
    assert len(merged) == len(set(merged))
    for row in tracks.itertuples():
        name = f"{row.year}_{row.footprint_id}"
        if row.event == "new":
            assert row.track_id == name
            assert row.parents == ""
        else:
            assert row.track_id in {of[parent] for parent in words(row.parents)}
        assert row.track_id not in words(row.merged_tracks)
        ended = tracks[tracks["track_id"].isin(words(row.merged_tracks))]
        assert (ended["year"] < row.year).all()
    summary = track_summary(tracks)
    assert set(summary["track_id"]) == set(tracks["track_id"])
    assert set(summary.loc[summary["status"] == "merged", "track_id"]) == set(merged)


@settings(max_examples=4, deadline=None)
@given(seeds)
def test_areas_add_up(seed):
    """Where no track ends in another one, the areas of tracks are those of the outlines; elsewhere they are no less."""
    yearly = {year: outline(level) for year, level in maps(seed, (2020, 2021, 2022)).items()}
    tracks = track_footprints(yearly)
    summary = track_summary(tracks)
    own = tracks.pivot_table(index="track_id", columns="year", values="area_m2", aggfunc="sum")
    stated = summary.set_index("track_id")[[f"area_{year}_m2" for year in own.columns]].loc[own.index]
    difference = stated.to_numpy() - own.to_numpy()
    assert (np.isnan(difference) == own.isna().to_numpy()).all()
    assert np.nanmin(difference, initial=0) > -1e-6
    untouched = (summary.set_index("track_id")["merged_from"] == "").loc[own.index].to_numpy()
    assert np.nanmax(np.abs(difference[untouched]), initial=0) < 1e-6


def test_geopandas_rows_are_plain():
    assert isinstance(track_footprints({2020: outline(maps(1, (2020,))[2020])}), geopandas.GeoDataFrame)
