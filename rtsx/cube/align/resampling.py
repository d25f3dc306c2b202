"""How pixels of one grid answer for pixels of another."""

from typing import Literal

__all__ = ["Resampling"]

Resampling = Literal["nearest", "bilinear", "cubic", "average"]
"""``nearest`` for masks and classes; ``bilinear`` or ``cubic`` for what varies smoothly; ``average`` where the target is
coarser."""
