"""The bundles of one prediction, taken together: do they go together, and with this cube? Pure checks."""

import re
import warnings
from collections.abc import Iterator, Sequence
from math import ceil, lcm
from os import PathLike

from odc.geo.geobox import GeoBox

from rtsx.cube.georeference import crs_name, ground_pixel_m
from rtsx.errors import BundleError, EnsembleWarning, PixelSizeWarning, PlanError
from rtsx.geometry.crs import unit_text
from rtsx.inference.plan import TestTimeAugmentation, TilingNeeds
from rtsx.model import ModelBundle
from rtsx.model.backend_choice import fixed_sides, receptive_field_of
from rtsx.model.network import BACKENDS, resolve_dtype

BundleGiven = ModelBundle | str | PathLike[str]
"""A bundle, or the path from which `ModelBundle.open` opens one."""

# Random resized crops, as training uses them, go about as far.
_MOST_DIFFERENT = 1.34

# Rotating the pixels of these does not rotate their directions, so a network would get wrong values.
_DIRECTIONAL = frozenset({"aspect", "hillshade"})


def ensemble(bundle: BundleGiven | Sequence[BundleGiven]) -> tuple[ModelBundle, ...]:
    """Return the bundles as a tuple, checked to have the same classes and activation; those at a path are opened.

    Raises
    ------
    BundleError
        There is none, or two differ in classes or activation.
    """
    several = bundle if isinstance(bundle, Sequence | Iterator) and not isinstance(bundle, str) else (bundle,)
    bundles = tuple(ModelBundle.open(one) if isinstance(one, str | PathLike) else one for one in several)
    wrong = [type(each).__name__ for each in bundles if not isinstance(each, ModelBundle)]
    if wrong or not bundles:
        raise BundleError(
            f"predict_cube takes a ModelBundle or several; got {', '.join(wrong) or 'none'}. "
            f"Open one with ModelBundle.open(path) or make one with ModelBundle.from_module(module, ...)."
        )
    first = bundles[0]
    for other in bundles[1:]:
        if other.classes != first.classes or (other.activation == "softmax") != (first.activation == "softmax"):
            raise BundleError(
                f"The bundles of an ensemble have to share classes and activation; {first.id!r} has {first.classes} "
                f"by {first.activation}, {other.id!r} has {other.classes} by {other.activation}. Run them apart."
            )
    return bundles


def check_runtime(
    *, device: str, precision: str, backend: str, batch_size: int | None, scales: Sequence[float]
) -> None:
    """Refuse words and numbers that mean nothing; whether a device or library is there, only the worker knows."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise BundleError(f"device has to be 'auto', 'cpu', 'cuda' or 'cuda:N'; got {device!r}.")
    resolve_dtype(precision)
    if backend not in ("auto", *BACKENDS):
        raise BundleError(f"backend has to be 'auto' or one of {', '.join(BACKENDS)}; got {backend!r}.")
    if not scales or not all(0 < scale <= 4 for scale in scales):
        raise PlanError(f"scales have to be one or more numbers above 0 and up to 4; got {tuple(scales)}.")
    if batch_size is not None and batch_size < 1:
        raise PlanError(f"batch_size has to be at least 1; got {batch_size}. Leave it out for the device's own choice.")


def warn_of_choices(bundles: Sequence[ModelBundle]) -> None:
    """Warn where members have chosen other thresholds or outlines than the first, whose choice counts for the mean of all."""
    by_threshold = bundles[0].activation != "softmax" or len(bundles[0].classes) == 1  # else the greatest class counts
    choices = [
        ", ".join(
            ([f"threshold {bundle.threshold:g}"] if by_threshold else [])
            + ([f"outlines {bundle.outlines}"] if bundle.outlines else [])
        )
        for bundle in bundles
    ]
    if len(set(choices)) > 1:
        listed = (f"{bundle.id!r}: {choice or 'nothing'}" for bundle, choice in zip(bundles, choices, strict=True))
        warnings.warn(
            f"The members of this ensemble have chosen differently ({'; '.join(listed)}). For their mean the choice of the first "
            "counts. Name the member first whose choice is meant, and give outlines a threshold that was chosen for the mean.",
            EnsembleWarning,
            stacklevel=3,
        )


def warn_of_pixel_size(bundles: Sequence[ModelBundle], geobox: GeoBox, *, scales: Sequence[float]) -> None:
    """Warn of a pixel size that no member was trained with: objects then look larger or smaller than in training.

    Parameters
    ----------
    bundles
        The members; those that do not state their pixel size are not checked.
    geobox
        The cube's; measured on the ground in its middle.
    scales
        Sizes at which tiles are shown; one that makes up for the difference is as good as the right pixel.
    """
    sides = ground_pixel_m(geobox)
    for bundle in bundles:
        if bundle.pixel_m is None:
            continue
        ratios = [[side / scale / bundle.pixel_m for side in sides] for scale in scales]
        if any(min(pair) >= 1 / _MOST_DIFFERENT and max(pair) <= _MOST_DIFFERENT for pair in ratios):
            continue
        size = " by ".join(dict.fromkeys(f"{side:.3g}" for side in sides))
        steps = [
            abs(step) * bundle.pixel_m / side
            for step, side in zip((geobox.affine.e, geobox.affine.a), sides, strict=True)
        ]
        unit = unit_text(geobox.crs.proj) if geobox.crs is not None else "units"
        resolution = " by ".join(dict.fromkeys(f"{step:.3g}" for step in steps))
        sizes = [f"{ratio:.2g} times smaller" if ratio > 1 else f"{1 / ratio:.2g} times larger" for ratio in ratios[0]]
        looks = " and ".join(dict.fromkeys(sizes))
        warnings.warn(
            f"Bundle {bundle.id!r} has learnt pixels of {bundle.pixel_m:g} m, and the cube has {size} m on the "
            f"ground: objects look {looks} to it than those that it has learnt, and it may miss or invent them. Open "
            f"layers {', '.join(bundle.layers)} at a resolution of {resolution} {unit} of {crs_name(geobox.crs)}.",
            PixelSizeWarning,
            stacklevel=3,
        )


def bundle_ids(bundles: Sequence[ModelBundle]) -> str:
    """Return the name of one bundle or of an ensemble, as maps and outlines keep it."""
    return "+".join(bundle.id for bundle in bundles)


def check_test_time_augmentations(bundles: Sequence[ModelBundle], augment: Sequence[TestTimeAugmentation]) -> None:
    """Refuse rotations and flips for bundles with layers that have a direction."""
    turned = [name for name in augment if name != "identity"]
    directed = sorted({layer for bundle in bundles for layer in bundle.layers} & _DIRECTIONAL)
    if turned and directed:
        raise PlanError(
            f"Turns ({', '.join(turned)}) cannot be used with layers {directed}, which have a direction: "
            f"a turned aspect is not the aspect of turned ground. Leave augment out."
        )


def tiling_needs_of(bundles: Sequence[ModelBundle], *, scales: Sequence[float], measures: bool) -> TilingNeeds:
    """Collect what the members need of a tiling.

    Parameters
    ----------
    bundles
        The members; tile and overlap are the first one's.
    scales
        At half the size a network looks twice as far.
    measures
        Whether the reach is wanted; one that is not stored with its bundle is measured then, once per machine.
    """
    reaches = [receptive_field_of(bundle) for bundle in bundles] if measures else []
    # A stored reach may be finite where the file takes one size only; no other tile can then be chosen.
    fixed = measures and any(any(fixed_sides(bundle.source)) for bundle in bundles)
    finite = bool(reaches) and not fixed and not any(reach.depends_on_tile for reach in reaches)
    farthest = max((reach.radius for reach in reaches), default=0) / min(scales, default=1.0)
    first = bundles[0]
    return TilingNeeds(
        stride=lcm(*(bundle.stride for bundle in bundles)),
        tile=first.tile,
        overlap=first.overlap,
        trim=first.trim,
        reach=ceil(farthest) if finite else None,
    )
