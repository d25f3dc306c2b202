"""Alignment: pixels of any raster on the pixels of any grid, exact and independent of chunks."""

__all__ = []
