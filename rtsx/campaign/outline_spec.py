"""How a campaign outlines what it has found."""

from dataclasses import dataclass

__all__ = ["OutlineSpec"]


@dataclass(frozen=True, kw_only=True)
class OutlineSpec:
    """The rule of the outlines; the words are those of `extract_footprints`."""

    min_area_m2: float = 288.0
    """Smaller objects are left out; geodesic area."""
    threshold: float | None = None
    """Smallest probability of an object pixel; None: the bundle's own."""
    edge_distance: int = 10
    """Pixels from invalid ground at which an outline counts as cut; the halo that cells look around themselves."""

    @property
    def halo(self) -> int:
        """Pixels that cells look around themselves: one at least, because what is cut has to be known to be merged."""
        return max(self.edge_distance, 1)
