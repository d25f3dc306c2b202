"""How far a pixel matters to a network's answer, as measured."""

from dataclasses import dataclass

__all__ = ["Reach"]


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What a perturbation test found out about a network."""

    stride: int
    """Total down-sampling in px."""
    radius: int
    """Farthest distance in px at which a changed pixel moves the answer by more than 0.005."""
    depends_on_tile: bool
    """Whether the answer in the middle of a tile changes with the tile's size."""
