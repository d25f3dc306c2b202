"""Probability to outlines, and outlines to tracks: merged across borders, measured on the ellipsoid, followed over years."""

from rtsx.footprints.cleaning import clean_footprints
from rtsx.footprints.extraction import extract_footprints
from rtsx.footprints.geographic import to_geographic
from rtsx.footprints.joining import merge_footprints
from rtsx.footprints.levels import level1_footprints, level2_footprints
from rtsx.footprints.schema import validate_footprints
from rtsx.footprints.simplification import simplify_footprints
from rtsx.footprints.summary import track_summary
from rtsx.footprints.tracks import track_footprints
from rtsx.footprints.writing import read_footprints, write_footprints, write_tracks
from rtsx.footprints.yearly_files import read_years

__all__ = [
    "clean_footprints",
    "extract_footprints",
    "level1_footprints",
    "level2_footprints",
    "merge_footprints",
    "read_footprints",
    "read_years",
    "simplify_footprints",
    "to_geographic",
    "track_footprints",
    "track_summary",
    "validate_footprints",
    "write_footprints",
    "write_tracks",
]
