"""Trends of the tasseled cap over all scenes of Landsat of a window of years."""

__all__ = []
