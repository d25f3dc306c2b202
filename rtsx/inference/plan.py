"""The plan of one prediction: everything that its values depend on, and nothing of where they are computed.

Frozen, comparable, printable; written into the attributes of every prediction. With it the turns of tiles that it names.
"""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, get_args

from rtsx.errors import PlanError
from rtsx.model.metadata import OutlineChoice
from rtsx.pages import html_table
from rtsx.parsing import parsed_json
from rtsx.tiling import TilePlan

if TYPE_CHECKING:
    import torch

TestTimeAugmentation = Literal["identity", "hflip", "vflip", "rot90", "rot180", "rot270", "transpose"]
"""A turn by name; rotations are counter-clockwise, `transpose` mirrors at the main diagonal."""

TEST_TIME_AUGMENTATIONS: tuple[TestTimeAugmentation, ...] = get_args(TestTimeAugmentation)
"""Every augmentation by name."""

_BACK: dict[TestTimeAugmentation, TestTimeAugmentation] = {"rot90": "rot270", "rot270": "rot90"}


def apply_dihedral(batch: "torch.Tensor", augmentation: TestTimeAugmentation) -> "torch.Tensor":
    """Flip or rotate a batch, as a view; shape (..., y, x) with y equal to x."""
    match augmentation:
        case "identity":
            return batch
        case "hflip":
            return batch.flip(-1)
        case "vflip":
            return batch.flip(-2)
        case "transpose":
            return batch.transpose(-2, -1)
        case _:
            return batch.rot90(int(augmentation.removeprefix("rot")) // 90, dims=(-2, -1))


def invert_dihedral(output: "torch.Tensor", augmentation: TestTimeAugmentation) -> "torch.Tensor":
    """Undo `apply_dihedral`: ``invert_dihedral(apply_dihedral(batch, a), a)`` is the batch.

    Examples
    --------
    >>> import torch
    >>> batch = torch.arange(4).reshape(2, 2)
    >>> all(torch.equal(invert_dihedral(apply_dihedral(batch, a), a), batch) for a in TEST_TIME_AUGMENTATIONS)
    True
    """
    return apply_dihedral(output, _BACK.get(augmentation, augmentation))


Merge = Literal["mean", "max"]
"""How the outputs at several scales become one."""

PredictionDtype = Literal["uint8", "float32"]
"""What probability is stored as: per cent with 255 for nodata, or a fraction with NaN."""


@dataclass(frozen=True, kw_only=True)
class PredictionPlan:
    """What is run over one raster, and how outputs are merged."""

    tiling: TilePlan
    """Tiles and their weights."""
    layers: tuple[str, ...]
    """Variables of the cube that are read."""
    classes: tuple[str, ...]
    """Names of the classes; one means yes or no."""
    threshold: float
    """Least probability of a positive pixel; among exclusive classes the most probable one counts instead."""
    exclusive: bool
    """True where the classes' probabilities sum to one (softmax)."""
    members: tuple[str, ...]
    """Digests of the bundles, whose outputs are averaged."""
    augment: tuple[TestTimeAugmentation, ...]
    """Flips and rotations whose outputs are averaged, the identity among them."""
    scales: tuple[float, ...]
    """Sizes at which the network sees a tile, as fractions of its own."""
    merge: Merge
    """How the scales are fused."""
    keep_members: bool
    """True: every bundle's own output and their spread are returned too."""
    dtype: PredictionDtype
    """What probability is stored as."""
    outlines: OutlineChoice | None = None
    """Threshold and least area of outlines that the first bundle brings; None: as `threshold` says."""

    def __post_init__(self) -> None:
        """Refuse what the kernel could not run."""
        unknown = [name for name in self.augment if name not in TEST_TIME_AUGMENTATIONS]
        if unknown:
            raise PlanError(
                f"augment has to be among {', '.join(TEST_TIME_AUGMENTATIONS)}; got {', '.join(map(str, unknown))}."
            )
        if self.merge not in ("mean", "max"):
            raise PlanError(f"merge has to be 'mean' or 'max'; got {self.merge!r}.")
        if self.dtype not in ("uint8", "float32"):
            raise PlanError(f"dtype has to be 'uint8' or 'float32'; got {self.dtype!r}.")
        if self.keep_members and self.tiling.blend == "max":
            raise PlanError(
                "keep_members cannot go with blend='max': the greatest of the members' mean is not the mean of their "
                "greatest. Take another blend."
            )
        for scale in self.scales:
            size = self.tiling.tile * scale
            if size % self.tiling.stride:
                raise PlanError(
                    f"A tile of {self.tiling.tile} px at scale {scale} has {size:g} px, which is no multiple of the "
                    f"network's stride of {self.tiling.stride} px. Take another scale or tile."
                )

    def _repr_html_(self) -> str:
        return html_table("Prediction plan", self.summary)

    @property
    def summary(self) -> list[tuple[str, object]]:
        """What it says in a few words, by name."""
        return [
            ("layers", ", ".join(self.layers)),
            ("classes", ", ".join(self.classes)),
            ("threshold", f"{self.threshold:g}"),
            *(() if self.outlines is None else [("outlines", str(self.outlines))]),
            ("tiles", f"{self.tiling.tile} px with overlap {self.tiling.overlap}, blended by {self.tiling.blend}"),
            ("bundles", ", ".join(digest[:12] for digest in self.members)),
            ("passes per tile", self.passes_per_tile),
        ]

    @property
    def kept(self) -> int:
        """Number of outputs that are kept apart until the end: one per bundle, or their mean alone."""
        return len(self.members) if self.keep_members else 1

    @property
    def passes_per_tile(self) -> int:
        """Number of forward passes of one tile, all bundles, augmentations and scales together."""
        return len(self.members) * len(self.augment) * len(self.scales)

    def to_json(self) -> str:
        """Write one line for an attribute; numbers and names only."""
        document = asdict(self)
        if self.outlines is None:  # so that plans of before keep their digest
            del document["outlines"]
        return json.dumps(document, sort_keys=True)

    @property
    def attrs(self) -> dict[str, object]:
        """Attributes of what is predicted by this plan, beside the plan itself."""
        chosen = {} if self.outlines is None else self.outlines.attrs
        return {"bundle_digest": "+".join(self.members), "threshold": self.threshold, **chosen}

    @classmethod
    def from_json(cls, text: str) -> "PredictionPlan":
        """Return the plan that `to_json` wrote, equal to it.

        Raises
        ------
        PlanError
            The text is no JSON object, a name is unknown or missing, a value is of another type, or values contradict
            each other.

        Examples
        --------
        >>> PredictionPlan.from_json('{"tiling": 3}')
        Traceback (most recent call last):
        ...
        rtsx.errors.PlanError: The plan, tiling: input should be an object; got 3. It was edited or damaged, ...
        """
        return parsed_json(text, cls, what="The plan", error=PlanError)
