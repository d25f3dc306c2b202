"""What a prediction is going to do, settled before anything runs: its plan, and the runner that carries it out."""

from collections.abc import Mapping, Sequence

import xarray as xr

from rtsx.cube import layer_names, packing
from rtsx.errors import BundleError, PlanError
from rtsx.inference.augment import Augmentation
from rtsx.inference.members import check_turns
from rtsx.inference.plan import AnswerType, Merge, PredictionPlan
from rtsx.inference.runner import Runner
from rtsx.model import ModelBundle
from rtsx.model.fixed_tile import check_fixed_tile
from rtsx.model.inputs import Packing, required_layers
from rtsx.model.values import check_units
from rtsx.tiling import TilePlan

__all__ = ["needed_layers", "packings_of", "prediction_plan", "runner_of"]


def needed_layers(bundles: Sequence[ModelBundle], available: Sequence[str]) -> tuple[str, ...]:
    """Names of the layers that the members read, each once, in the order of the first that wants it.

    Raises
    ------
    BundleError
        A layer is missing and cannot be derived.
    """
    return tuple(dict.fromkeys(n for bundle in bundles for n in required_layers(bundle.inputs, available)))


def packings_of(bundles: Sequence[ModelBundle], cube: xr.Dataset, *, layers: Sequence[str]) -> Mapping[str, Packing]:
    """How the layers of a cube are stored, checked to be what the members rely on; looks at attributes only.

    Raises
    ------
    BundleError
        A layer is missing, lacks the scale that a bundle relies on, or is in another unit.
    """
    at_hand = layer_names(cube)
    missing = [name for name in layers if name not in at_hand]
    if missing:
        raise BundleError(
            f"The prediction reads layers {list(layers)}, but the cube has {list(at_hand)}: missing {missing}."
        )
    packings = {name: Packing(**packing(cube[name])) for name in layers}
    check_units(
        [layer for bundle in bundles for layer in bundle.inputs],
        packings,
        dtypes={name: cube[name].dtype for name in layers},
        units={name: cube[name].attrs.get("units", "") for name in layers},
    )
    return packings


def prediction_plan(
    bundles: Sequence[ModelBundle],
    *,
    layers: Sequence[str],
    tiling: TilePlan,
    augment: Sequence[Augmentation],
    scales: Sequence[float],
    merge: Merge,
    keep_members: bool,
    dtype: AnswerType,
) -> PredictionPlan:
    """The plan of bundles over a tiling; pure.

    Parameters
    ----------
    bundles
        The members, which share classes and activation; see `ensemble`.
    layers
        Names of the layers that are at hand; those that no member needs are left out.
    tiling
        Tiles of the raster.
    augment, scales, merge, keep_members, dtype
        As in `predict_cube`.

    Raises
    ------
    BundleError
        A layer is missing.
    PlanError
        A network takes tiles of another size only, or turns would turn layers that have a direction.
    """
    check_turns(bundles, augment)
    for each in bundles:
        check_fixed_tile(each, sizes=tuple(round(tiling.tile * scale) for scale in scales))
    first = bundles[0]
    return PredictionPlan(
        tiling=tiling,
        layers=needed_layers(bundles, layers),
        classes=first.classes,
        threshold=first.threshold,
        exclusive=first.activation == "softmax" and len(first.classes) > 1,
        members=tuple(b.digest for b in bundles),
        augment=tuple(dict.fromkeys(("identity", *augment))),
        scales=tuple(float(scale) for scale in scales),
        merge=merge,
        keep_members=keep_members,
        dtype=dtype,
    )


def runner_of(
    plan: PredictionPlan,
    bundles: Sequence[ModelBundle],
    cube: xr.Dataset,
    *,
    device: str,
    precision: str,
    backend: str,
    batch_size: int | None,
) -> Runner:
    """Whoever runs a plan on the layers of a cube; opens no network.

    Parameters
    ----------
    plan
        What is run.
    bundles
        Those that the plan was made of, in their order.
    cube
        Holds the plan's layers; only their dtype and packing are looked at.
    device, precision, backend, batch_size
        As in `predict_cube`.

    Raises
    ------
    PlanError
        The bundles are others than those of the plan.
    BundleError
        A layer is missing, or lacks the scale that a bundle relies on.
    """
    digests = tuple(bundle.digest for bundle in bundles)
    if digests != plan.members:
        raise PlanError(
            f"The plan was made of bundles {[one[:12] for one in plan.members]}, but {[one[:12] for one in digests]} came. "
            "Run it with its own bundles, or plan again."
        )
    return Runner(
        plan=plan,
        bundles=tuple(bundles),
        packings=packings_of(bundles, cube, layers=plan.layers),
        device=device,
        precision=precision,
        backend=backend,
        batch_size=batch_size,
    )
