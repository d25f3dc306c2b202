"""The earth: coordinate reference systems, and longitudes across the antimeridian."""

__all__: list[str] = []
