"""Layers with a direction: an aspect turns with the picture, light from a fixed side cannot."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from rtsx.errors import TrainingError
from rtsx.training.batch import Batch

__all__ = ["ANGLES", "check_directions", "turned_aspect"]

ANGLES = frozenset({"aspect"})
"""Layers in degrees clockwise from north, of which 0 is level ground."""

_FIXED = frozenset({"eastness", "hillshade", "illumination", "northness"})
"""Layers that depend on a direction outside the picture, in a way that no formula turns."""


def check_directions(augmentation: str, layers: Sequence[str]) -> None:
    """Refuse to turn pictures with layers that cannot be turned.

    Raises
    ------
    TrainingError
        There is one.
    """
    fixed = sorted(_FIXED & set(layers))
    if fixed:
        raise TrainingError(
            f"{augmentation} turns the picture, but {fixed} would still be lit or measured from the same side: no ground looks "
            "like that. Leave the augmentation out, or train without these layers; aspect and slope say the same and turn."
        )


def turned_aspect(batch: Batch, *, sign: int, degrees: torch.Tensor | float) -> Batch:
    """The batch with every aspect `a` replaced by ``sign * a + degrees``, modulo 360.

    An aspect is an azimuth, clockwise from the top of the picture (Horn 1981, Proc. IEEE 69(1), p. 22). A picture turned
    counter-clockwise by t therefore has a - t; mirrored left to right -a, because east and west change places; mirrored
    top to bottom 180 - a. Where north is not at the top, as rtsx measures aspect from true north, a mirrored picture is
    one of ground whose meridian leans to the other side; that ground exists too.

    Level ground, which rtsx writes as exactly 0, stays 0, and so does the rare slope that faces north to the last bit, which
    cannot be told from it. Sloping ground that comes to face north is 360, to stay apart.

    Parameters
    ----------
    batch
        Tiles, already turned.
    sign
        -1 where the picture was mirrored, else 1.
    degrees
        What is added, one number or one per tile (tile,).
    """
    places = [place for place, name in enumerate(batch.layers) if name in ANGLES]
    if not places:
        return batch
    stored = batch.stored.clone()
    shift = degrees.to(stored)[:, None, None] if isinstance(degrees, torch.Tensor) else degrees
    for place in places:
        packing = batch.packings[batch.layers[place]]
        aspect = stored[:, place] * packing.scale_factor + packing.add_offset
        turned = torch.remainder(sign * aspect + shift, 360.0)
        turned = torch.where(turned == 0, 360.0, turned)
        turned = torch.where(aspect == 0, 0.0, turned)
        stored[:, place] = torch.where(batch.valid, (turned - packing.add_offset) / packing.scale_factor, 0.0)
    return replace(batch, stored=stored)
