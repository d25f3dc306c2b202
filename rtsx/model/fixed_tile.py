"""Networks that take tiles of one size only: what a file says about that, known without running it."""

from rtsx.errors import PlanError
from rtsx.model.bundle import ModelBundle
from rtsx.model.eager import exported_shape
from rtsx.model.onnx import OnnxSource
from rtsx.model.source import NetworkSource
from rtsx.model.torch_export import ExportSource

__all__ = ["check_fixed_tile", "fixed_sides"]


def fixed_sides(source: NetworkSource) -> tuple[int | None, int | None]:
    """Height and width in px that alone the network takes; None where it says nothing, as torch modules do."""
    if isinstance(source, OnnxSource):
        return source.shapes.height, source.shapes.width
    if isinstance(source, ExportSource):
        shape = exported_shape(source.load_module())
        return (None, None) if shape is None else (shape[1], shape[2])
    return None, None


def check_fixed_tile(bundle: ModelBundle, *, sizes: tuple[int, ...]) -> None:
    """Refuse tiles that the bundle's network cannot take.

    Parameters
    ----------
    bundle
        Whose network is to run.
    sizes
        Sides in px of the tiles that it would be shown, at every scale.

    Raises
    ------
    PlanError
        The network was exported for another size.
    """
    height, width = fixed_sides(bundle.source)
    wrong = [size for size in sizes if {height, width} - {None, size}]
    if wrong:
        cure = f"Take tile={height} and no other scale" if height == width else "No square tile fits"
        raise PlanError(
            f"Bundle {bundle.id!r} takes tiles of {height or 'any'} x {width or 'any'} px only; the plan has tiles of "
            f"{', '.join(map(str, wrong))} px. {cure}, or export the network with free height and width."
        )
