"""Open whatever holds a network, at a local path or any fsspec URL; formats are told apart by content and tried on small tiles."""

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from rtsx.errors import BundleError
from rtsx.model.backends import Forward, exported_shape, open_eager, single_output
from rtsx.model.bundle_io import ITEM_NAME, read_item
from rtsx.model.checkpoints import PRETRAINED_CONFIG, LoadedModel, read_checkpoint, read_pretrained
from rtsx.model.exported import ExportSource, TorchScriptSource, archive_kind
from rtsx.model.inputs import InputLayer
from rtsx.model.metadata import Activation, Metadata, check_background
from rtsx.model.network import run_in_torch_thread
from rtsx.model.onnx import OnnxSource, open_onnx
from rtsx.model.receptive_field import SyntheticInputs, input_ranges
from rtsx.model.smp import SmpSource
from rtsx.model.source import NetworkSource, digest_of_bytes
from rtsx.names import DEMO, bundle_path, version_of
from rtsx.storage import file_name, file_system, start_problem, without_query

_SIDE = 128
"""Side of the trial tile in px, where the stride allows."""


def smoke_test(
    module: torch.nn.Module | Forward, *, n_layers: int, classes: tuple[str, ...], tile: int, stride: int
) -> torch.Tensor:
    """Run a network once on noise, and refuse it when it does not fit its description; return its raw answer.

    Raises
    ------
    BundleError
        The network takes another number of layers, or returns another number of classes or another size.

    Examples
    --------
    >>> network = torch.nn.Conv2d(3, 1, 1)
    >>> smoke_test(network, n_layers=3, classes=("target",), tile=256, stride=1).shape
    torch.Size([1, 1, 128, 128])
    """
    # One tile, unless the module is a program that was exported for another number.
    batch = ((isinstance(module, torch.nn.Module) and exported_shape(module)) or (1,))[0] or 1
    # The other, because a network that was traced or exported for one size takes, or returns, its own tile only.
    for side in dict.fromkeys((min(tile, max(stride, _SIDE // stride * stride)), tile)):
        noise = torch.randn((batch, n_layers, side, side), generator=torch.Generator().manual_seed(0))
        raw, failure = _attempt(module, noise)
        if failure is None:
            output, expected = single_output(raw), (batch, len(classes), side, side)
            if tuple(output.shape) == expected:
                return output
    if failure is not None:
        bound = exported_shape(module) if isinstance(module, torch.nn.Module) else None
        if bound is not None and set(bound[1:]) - {None, tile}:
            raise BundleError(
                f"The program was exported for tiles of {bound[1] or 'any'} x {bound[2] or 'any'} px; got tile={tile}. Pass tile={bound[1] or bound[2]}, "
                "or export it with dynamic sizes of y and x."
            ) from failure
        if _attempt(module, noise.permute(0, 2, 3, 1))[1] is None:
            raise BundleError(
                "The network takes its channels last, (tile, y, x, layer). Wrap it in a module that takes (tile, layer, y, x), turns it "
                "into that order and the output back; in Python, x.permute(0, 2, 3, 1) and y.permute(0, 3, 1, 2)."
            ) from failure
        problem = _last_line(failure)
        cure = (
            "Tiles come in float32: let it take them so, and convert them inside, or export it in float32."
            if _OTHER_DTYPE.search(problem)
            else "Check that the layers are as many as its input channels, and that the tile is a multiple of its stride."
        )
        raise BundleError(
            f"The network cannot run on {n_layers} layers and a tile of {tile} px: {problem}. {cure}"
        ) from failure
    cure = "Name as many classes as it has output channels, and let it output at the resolution of its input."
    if tuple(output.shape) == (batch, side, side):
        cure = "Let it keep the dimension of its one class, or return the scores instead of an argmax over them."
    elif tuple(output.shape) == (batch, side, side, len(classes)):
        cure = "Let it return its classes second, before rows and columns."
    raise BundleError(
        f"With classes {list(classes)} the network has to turn tiles ({batch}, {n_layers}, {side}, {side}) into "
        f"{expected}; it returned {tuple(output.shape)}. {cure}"
    )


_OTHER_DTYPE = re.compile(
    r"\b(u?int(8|16|64)|Byte|Char|Half|half|B?[Ff]loat(16|64)|bfloat16|Double|double|dtype|scalar type)\b"
)
"""In errors of networks that take other numbers than float32."""


def _attempt(network: torch.nn.Module | Forward, tiles: torch.Tensor) -> tuple[Any, Exception | None]:
    """Run a foreign network, which may fail in any way; returns what it returned, or its error."""
    try:
        with torch.no_grad():
            return network(tiles.clone()), None
    except Exception as error:
        return None, error


def check_output(
    forward: Forward, *, inputs: Sequence[InputLayer], side: int, activation: str | None, described: str
) -> None:
    """Refuse a network whose output the activation would squeeze a second time, that returns class numbers, or that draws lots.

    The network runs on a plausible scene, twice, and on noise of many amplitudes. Scores (logits) grow with the amplitude, so
    an output that stays within 0..1, -1..1, 0..100 or 0..255, or whose classes always have one sum, is no score.

    Parameters
    ----------
    forward
        The network without the bundle's activation.
    inputs
        Its channels, for the plausible scene.
    side
        Side in px of a tile that it takes.
    activation
        "none" where the caller says that it returns probabilities.
    described
        What the network is, for messages.

    Raises
    ------
    BundleError
        The message says what was returned, and what to pass instead.

    Examples
    --------
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Sigmoid())
    >>> check_output(network, inputs=[InputLayer(name="red")], side=32, activation="none", described="The module")
    """
    scene, *noise = _probes(inputs, side)
    first, *others = [_finite_output(forward, tile) for tile in (scene, *noise)]
    outputs = [output for output in (first, *others) if output is not None]
    if not outputs:
        return
    numbers = torch.cat([output.double() for output in outputs])
    if not outputs[0].dtype.is_floating_point or _are_class_numbers(numbers, activation=activation):
        some = ", ".join(f"{value:g}" for value in numbers.unique()[:5])
        raise BundleError(
            f"{described} returns whole numbers ({some}; {outputs[0].dtype}), which are class numbers or a finished "
            "mask, not scores. Take the argmax, threshold or cast off its end, so that it returns one score or "
            "probability per class as float."
        )
    again = _finite_output(forward, scene)
    moved = 0.0 if first is None or again is None else float((again - first).abs().max())
    if first is not None and moved > _RANDOM * float(first.abs().max()):
        raise BundleError(
            f"{described} returns other numbers for the same tile the second time (by up to {moved:.3g}): dropout or noise "
            "runs in its forward, or it remembers what it saw before. Let evaluation switch that off, as it does torch's own "
            "layers of dropout."
        )
    elsewhere = _softmax_elsewhere(numbers)
    if elsewhere is not None:
        raise BundleError(
            f"{described} returns {elsewhere}, whatever it is shown: it ends in a softmax that does not go over its classes. Let it go "
            "over dimension 1 of several classes, or take it off the network's end."
        )
    if first is not None:
        _check_neighbours(forward, scene, beside=noise[2], alone=first, described=described)
    if activation == "none":
        return
    squeezed = _squeezed(numbers, activation=activation)
    if squeezed is not None:
        raise BundleError(
            f"{described} returns {squeezed[0]} already, whatever it is shown ({numbers.min():.3g} to "
            f"{numbers.max():.3g}); a {activation or 'sigmoid or softmax'} over them would make nearly equal numbers of "
            f"them. {squeezed[1]}"
        )


def _softmax_elsewhere(numbers: torch.Tensor) -> str | None:
    """Return what numbers (tile, class, y, x) are by a softmax over another dimension than the classes; None where they are not."""
    if bool((numbers == 1).all()):
        return "1 everywhere"
    for dimension, name in ((2, "column"), (3, "row")):
        if bool((numbers >= 0).all()) and _have_sum(numbers, 1, dim=dimension):
            return f"numbers that sum to 1 over each {name}"
    return None


def _check_neighbours(
    forward: Forward, scene: torch.Tensor, *, beside: torch.Tensor, alone: torch.Tensor, described: str
) -> None:
    """Refuse a network whose answer for a tile depends on the others of its batch, or that takes one tile alone."""
    both, failure = _attempt(forward, torch.cat([scene, beside]))
    if failure is not None or both.shape != (2, *alone.shape[1:]):
        returned = "fails on" if failure is not None else f"returns {tuple(both.shape)} for"
        raise BundleError(
            f"{described} takes one tile at a time, and {returned} two{f': {_last_line(failure)}' if failure else ''}. Let it take any "
            "number of them, as x.shape[0] says, or export it to ONNX for a batch of one, which is run tile by tile."
        ) from failure
    moved = float((both[:1].detach().cpu() - alone).abs().max())
    if moved > _RANDOM * float(alone.abs().max()):
        raise BundleError(
            f"{described} returns other numbers for a tile that comes with another one (by up to {moved:.3g}): it normalises over the "
            "whole batch, or mixes its tiles. Let it go by each tile alone, or by stored averages."
        )


def _finite_output(forward: Forward, tile: torch.Tensor) -> torch.Tensor | None:
    """Return the raw output for a tile; None where it is not finite or the network fails, beyond what its arithmetic holds."""
    returned, failure = _attempt(forward, tile)
    if failure is not None:  # `smoke_test` says whether it runs at all
        return None
    output: torch.Tensor = returned.detach().cpu()
    return output if not output.dtype.is_floating_point or bool(output.isfinite().all()) else None


_RANDOM = 1e-3
"""Of the greatest output: more is no rounding of threads."""
_AMPLITUDES = (0.1, 1.0, 10.0, 100.0, 1000.0)
"""Of the noise that is shown, in channel units; networks are trained on amplitudes about 1."""


def _probes(inputs: Sequence[InputLayer], side: int) -> Iterator[torch.Tensor]:
    yield SyntheticInputs(ranges=input_ranges(inputs)).field(side, number=0).contiguous()
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(inputs), side, side)
    for amplitude in _AMPLITUDES:
        for _ in range(2):
            # Each layer has a level of its own besides, because networks that average see nothing in noise.
            level = 2 * torch.randn((*shape[:2], 1, 1), generator=generator)
            yield amplitude * (level + torch.randn(shape, generator=generator))


def _are_class_numbers(numbers: torch.Tensor, *, activation: str | None) -> bool:
    low, high = numbers.min(), numbers.max()
    # Zeros and ones of a network that is said to return probabilities are probabilities, if coarse ones.
    is_mask = activation == "none" and 0 <= low <= high <= 1
    return not is_mask and bool((low >= 0) & (low < high) & (high < _MOST_CLASSES) & (numbers == numbers.round()).all())


_MOST_CLASSES = 256
"""Whole numbers above are the scores of strong noise."""


def _squeezed(numbers: torch.Tensor, *, activation: str | None) -> tuple[str, str] | None:
    """Return what the numbers (tile, class, y, x) are instead of scores, and the cure; None for scores, and where they do not tell."""
    low, high = float(numbers.min()), float(numbers.max())
    if low == high:
        return None
    if numbers.shape[1] > 1:
        if low >= 0 and _have_sum(numbers, 1):
            return "probabilities that sum to 1 over the classes", _NONE
        if low >= 0 and _have_sum(numbers, 100):
            return "percentages", _SCALED.format(wrong="(x / 100)")
        # A softmax takes the logarithm back: the answer is right.
        if high <= 0 and activation == "sigmoid" and _have_sum(numbers.exp(), 1):
            return "logarithms of probabilities", "Pass activation='softmax', which takes the logarithm back."
    if high - low < _FLAT and not (low >= 0 and (high < _FLAT or low > 1 - _FLAT)):
        return None  # a network without weights yet: nothing is known about it
    if low >= 0 and high <= 1:
        return "probabilities", _NONE
    if low >= -1 and high <= 1 and _reach(numbers, -1, 1):
        return "numbers of a tanh", _SCALED.format(wrong="((x + 1) / 2)")
    for most, scale in ((100, "(x / 100)"), (255, "(x / 255)")):
        if low >= 0 and high <= most and _reach(numbers, 0, most):
            return f"probabilities times {most}", _SCALED.format(wrong=scale)
    # What was resized by cubic convolution reaches a little beyond.
    if -_OVERSHOOT <= low <= 0.01 and 0.99 <= high <= 1 + _OVERSHOOT and _reach(numbers, 0, 1):
        return "probabilities that were resized", _SCALED.format(wrong="x.clamp(0, 1)")
    if activation != "softmax" and (numbers.shape[1] == 1 or activation == "sigmoid"):
        return _one_sided(numbers, low=low, high=high)
    return None


def _one_sided(numbers: torch.Tensor, *, low: float, high: float) -> tuple[str, str] | None:
    """Return what numbers are that end at 0: a sigmoid makes all of them at least, or at most, one half."""
    if low >= 0 and int((numbers <= _FLAT).sum()) >= _CROWD:
        return "numbers never below 0", "Take what bounds them, such as a ReLU or a factor, off the network's end."
    if high <= 0 and int((numbers >= -_FLAT).sum()) >= _CROWD:
        return "numbers never above 0, as logarithms of probabilities are", _SCALED.format(wrong="x.exp()")
    return None


_OVERSHOOT = 0.35
"""How far beyond 0 and 1 cubic and Lanczos resizing takes probabilities."""


_NONE = "Pass activation='none' if they are probabilities; else take what bounds them off the network's end."
_SCALED = "Wrap the network in a module that returns probabilities, {wrong}, and pass activation='none'."
_FLAT = 1e-3
"""Numbers of less spread say nothing about where they end, unless they crowd at 0 or 1."""


def _have_sum(numbers: torch.Tensor, total: float, *, dim: int = 1) -> bool:
    # Half precision inside a network rounds to three digits.
    return bool((numbers.sum(dim=dim) / total - 1).abs().max() < 5e-3)


def _reach(numbers: torch.Tensor, low: float, high: float) -> bool:
    """Test whether many numbers crowd at both bounds, as those of no score do."""
    near = 1e-3 * (high - low)
    return all(int(((numbers - bound).abs() <= near).sum()) >= _CROWD for bound in (low, high))


_CROWD = 16


def _last_line(error: Exception | None) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


@dataclass(frozen=True)
class _Location:
    """A file or folder in a file system."""

    fs: Any
    """The fsspec file system."""
    path: str
    """Path in the file system, without a slash at its end."""

    def __truediv__(self, name: str) -> "_Location":
        bare = without_query(self.path)
        # What is signed is signed for the whole folder.
        return _Location(self.fs, f"{bare}/{name}{self.path.removeprefix(bare)}")

    @property
    def name(self) -> str:
        """Last part of the path."""
        return without_query(self.path).rpartition("/")[2]

    @property
    def parent(self) -> "_Location":
        """The folder that this is in."""
        bare = without_query(self.path)
        return _Location(self.fs, bare.rpartition("/")[0] + self.path.removeprefix(bare))

    def read(self) -> bytes:
        """Return the content of the file."""
        try:
            return bytes(self.fs.cat_file(self.path))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise BundleError(
                f"There is no file {self.path}. Check the path; bundles have to be copied whole."
            ) from error
        except PermissionError as error:
            raise BundleError(f"{self.path} may not be read by this user. Ask its owner for access.") from error

    @property
    def is_file(self) -> bool:
        """Test whether it is a file that is there."""
        return bool(self.fs.isfile(self.path))


def open_network_source(
    path: str, *, said: Metadata, trust: bool, network: Mapping[str, str], storage_options: Mapping[str, Any]
) -> LoadedModel:
    """Open a network and complete what is known about it.

    Parameters
    ----------
    path
        Local path or fsspec URL of a bundle's folder, or of a file of weights; `DEMO`, unless something is called so.
    said
        What the caller says; counts more than what the file says.
    trust
        Whether the caller vouches for the author of a file that can run code when it is read.
    network
        `architecture` and `encoder` of a checkpoint, where the caller says them; refused for anything else.
    storage_options
        Arguments of the URL's file system, such as credentials.

    Raises
    ------
    BundleError
        Nothing is there, or it is no model, or something about it is missing; `UntrustedModelError` for files that can
        run code.
    """
    path = bundle_path(path)
    fs, inside = file_system(path, storage_options, error=BundleError)
    location = _Location(fs, inside.rstrip("/") or "/")
    if not fs.exists(location.path):
        raise BundleError(
            f"There is no model at {path}. Check the path; it is a bundle's folder or a file of weights, or {DEMO}, which ships with rtsx."
        )
    folder = _bundle_folder(location)
    if folder is not None:
        _refuse_network(network, what=path)
        return _open_bundle(folder, said=said, trust=trust)
    if (location / PRETRAINED_CONFIG).is_file and (location / "model.safetensors").is_file:
        location /= "model.safetensors"
    if location.fs.isdir(location.path):
        raise BundleError(
            f"The folder {path} is no bundle: it has no {ITEM_NAME}. Open one of its files: "
            f"{sorted(name.rpartition('/')[2] for name in location.fs.ls(location.path, detail=False))[:8]}."
        )
    data = location.read()
    problem = start_problem(data)
    if problem is not None:
        raise BundleError(f"{path} cannot be opened: {problem}")
    _refuse_inflating(data, path)
    opened = run_in_torch_thread(lambda: _open_file(location, data, said=said, trust=trust, network=network))
    metadata = opened.metadata
    check_background(metadata.classes or ())
    packages = ("rtsx", "torch", "segmentation-models-pytorch")
    versions = {name: version_of(name) or "unknown" for name in packages}  # rtsx run from a checkout has none
    provenance = {"file": location.name, "sha256": digest_of_bytes(data), **versions, **(metadata.provenance or {})}
    return replace(opened, metadata=replace(metadata, provenance=provenance, id=metadata.id or _stem(location)))


def _bundle_folder(location: _Location) -> _Location | None:
    if location.name in {ITEM_NAME, "weights.safetensors"} and (location.parent / ITEM_NAME).is_file:
        return location.parent
    return location if (location / ITEM_NAME).is_file else None


def _open_bundle(folder: _Location, *, said: Metadata, trust: bool) -> LoadedModel:
    where = (folder / ITEM_NAME).path
    item = read_item((folder / ITEM_NAME).read(), where=where)
    data = (folder / item.filename).read()
    if digest_of_bytes(data) != item.checksum:
        raise BundleError(
            f"{(folder / item.filename).path} is not the file that {ITEM_NAME} describes: its sha256 does not begin with "
            f"{item.checksum[:12]}. It is truncated or was exchanged; copy the bundle again."
        )
    _refuse_inflating(data, (folder / item.filename).path)
    source = run_in_torch_thread(lambda: _source_of(item.kind, data, options=item.options, trust=trust))
    return _loaded(source, said.over(item.metadata), described=folder.path)


def _refuse_network(network: Mapping[str, str], *, what: str) -> None:
    if network:
        raise BundleError(
            f"{what} holds its network whole, so architecture= and encoder= cannot change it; got {dict(network)}. Leave "
            "them out; they are for checkpoints."
        )


def _refuse_inflating(data: bytes, what: str) -> None:
    """Refuse an archive that unpacks to far more than itself; torch stores numbers as they are."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > 4 * len(data) + _SMALL_BYTES:
        raise BundleError(
            f"{what} has {len(data):,} bytes and would unpack to {unpacked:,}; four times its size and {_SMALL_BYTES:,} bytes are "
            "the limit. Save it anew with torch.save, which compresses nothing."
        )


_SMALL_BYTES = 16_000_000
"""What code and names may take besides, which torch does compress."""


def _source_of(
    kind: str,
    data: bytes,
    *,
    options: Mapping[str, object],
    trust: bool,
    read_sibling: Callable[[str], bytes] | None = None,
) -> NetworkSource:
    match kind:
        case "smp":
            return SmpSource.from_bytes(data, {name: value for name, value in options.items() if name != "digest"})
        case "torchscript":
            return TorchScriptSource.from_bytes(data, trust=trust)
        case "export":
            return ExportSource.from_bytes(data, options, trust=trust)
        case "onnx":
            return OnnxSource.from_bytes(data, read_sibling=read_sibling)
    raise BundleError(f"Unknown kind of network {kind!r} in {ITEM_NAME}. Update rtsx, or copy the bundle again.")


def _open_file(
    location: _Location, data: bytes, *, said: Metadata, trust: bool, network: Mapping[str, str]
) -> LoadedModel:
    suffix = location.name.rpartition(".")[2].lower()
    if suffix == "safetensors":
        beside = location.parent / PRETRAINED_CONFIG
        if not beside.is_file and location.name == "weights.safetensors":
            raise BundleError(
                f"{location.path} holds weights without their description: there is no {ITEM_NAME} beside it. Open the "
                "bundle's whole folder, or the checkpoint that they were taken from."
            )
        pretrained = read_pretrained(
            data, beside.read() if beside.is_file else None, name=location.name, stated=network
        )
        return _loaded(pretrained.source, said.over(pretrained.metadata), described=location.path)
    kind = "onnx" if suffix == "onnx" else archive_kind(data)
    if kind is None:
        checkpoint = read_checkpoint(
            data, name=location.name, read_run_config=lambda: _run_config(location), stated=network, trust=trust
        )
        return _loaded(checkpoint.source, said.over(checkpoint.metadata), described=location.path)
    _refuse_network(network, what=location.path)
    beside = location.parent
    source = _source_of(kind, data, options={}, trust=trust, read_sibling=lambda name: (beside / name).read())
    if isinstance(source, OnnxSource):
        activation: Activation | None = "none" if source.shapes.has_activation else None
        said = said.over(Metadata(tile=source.shapes.height, activation=activation))
    return _loaded(source, said, described=location.path)


def _run_config(location: _Location) -> bytes | None:
    places = [folder / "config.yml" for folder in (location.parent, location.parent.parent)]
    return next(filter(None, (place.read() for place in places if place.is_file)), None)


def _loaded(source: NetworkSource, stated: Metadata, *, described: str) -> LoadedModel:
    """Complete what is stated of a network, and check that it fits."""
    metadata = stated.scaled()
    metadata.require(described=described, opener=f"ModelBundle.open({file_name(described)!r}")
    run_in_torch_thread(lambda: check_network(source, metadata, described=described))
    return LoadedModel(source=source, metadata=metadata)


def check_network(source: NetworkSource, metadata: Metadata, *, described: str) -> None:
    """Refuse a network that does not fit a complete description; it is run on small tiles where that is needed to know.

    Raises
    ------
    BundleError
        It takes other layers or tiles, returns other classes, or returns no scores; see `check_output`.
    """
    inputs = metadata.inputs or ()
    tile = metadata.tile or 0
    stride = metadata.stride or min(32, tile or 32)
    cpu = torch.device("cpu")
    if isinstance(source, SmpSource):
        _check_channels(metadata, n_channels=source.n_channels, n_classes=source.n_classes)
        if source.options.get("activation") in (None, "identity"):
            return  # it returns scores by its build
    if isinstance(source, OnnxSource):
        _check_onnx(source, metadata, described=described)
        module: torch.nn.Module | Forward = open_onnx(source.onnx_path(), device=cpu)
    else:
        module = source.load_module()
    output = smoke_test(module, n_layers=len(inputs), classes=metadata.classes or (), tile=tile, stride=stride)
    forward = open_eager(module, device=cpu, dtype=torch.float32) if isinstance(module, torch.nn.Module) else module
    check_output(forward, inputs=inputs, side=output.shape[-1], activation=metadata.activation, described=described)


def _check_onnx(source: OnnxSource, metadata: Metadata, *, described: str) -> None:
    shapes = source.shapes
    _check_channels(metadata, n_channels=shapes.n_channels, n_classes=shapes.n_classes)
    fixed = {side for side in (shapes.height, shapes.width) if side is not None}
    if fixed - {metadata.tile}:
        cure = f"Pass tile={min(fixed)}, or export" if len(fixed) == 1 else "Tiles are square: export"
        raise BundleError(
            f"{described} takes tiles of {shapes.height or 'any'} x {shapes.width or 'any'} px only; got "
            f"tile={metadata.tile}. {cure} the network with free height and width."
        )


def _check_channels(metadata: Metadata, *, n_channels: int | None, n_classes: int | None) -> None:
    layers = [layer.name for layer in metadata.inputs or ()]
    classes = list(metadata.classes or ())
    if n_channels not in {None, len(layers)}:
        raise BundleError(
            f"The network takes {n_channels} channels, but {len(layers)} layers are named: {layers}. Pass layers= (with "
            "mean= and std=, or preset=) in the order of the network's channels."
        )
    if n_classes not in {None, len(classes)}:
        raise BundleError(
            f"The network answers with {n_classes} channels, but {len(classes)} classes are named: {classes}. Pass "
            f"classes= in the order of the network's output.{_with_background(classes, n_classes)}"
        )


def _with_background(classes: Sequence[str], n_classes: int | None) -> str:
    """Return what to name where the one channel more is what no class is."""
    if n_classes != len(classes) + 1:
        return ""
    return f" Where its first channel is what none of them is, they are {['background', *classes]}."


def _stem(location: _Location) -> str:
    stem = location.name.rpartition(".")[0] or location.name
    # TSS numbers its checkpoints by epoch, so the run's name has to come with it.
    return f"{location.parent.parent.name}-{stem}" if location.parent.name == "checkpoints" else stem
