"""Probability to outlines, and outlines to tracks: merged across borders, measured on the ellipsoid, followed over years."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.footprints.clean import clean_footprints, simplify_footprints
    from rtsx.footprints.confidence import ConfidenceRule, ConfidenceStratum
    from rtsx.footprints.extract import extract_footprints
    from rtsx.footprints.geometry import to_geographic
    from rtsx.footprints.io import read_footprints, read_years, write_footprints, write_tracks
    from rtsx.footprints.merge import merge_footprints
    from rtsx.footprints.products import level1_footprints, level2_footprints, track_summary
    from rtsx.footprints.schema import validate_footprints
    from rtsx.footprints.tracks import track_footprints

__getattr__ = lazy(__name__)
