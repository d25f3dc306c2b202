"""Networks of segmentation-models-pytorch, by name, and as a source of a bundle."""

import inspect
import re
import reprlib
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import ClassVar, Literal, cast

import safetensors
import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode

from rtsx.errors import BundleError
from rtsx.model.source import Artifact, Framework, NetworkSource, digest_of_tensors, fingerprint
from rtsx.names import did_you_mean

ARCHITECTURES = (
    "DPT",
    "DeepLabV3",
    "DeepLabV3Plus",
    "FPN",
    "Linknet",
    "MAnet",
    "PAN",
    "PSPNet",
    "Segformer",
    "UPerNet",
    "Unet",
    "UnetPlusPlus",
)
"""Architectures in the spelling of the library and of the field's configuration files; any case is understood."""


def build_network(architecture: str, options: Mapping[str, object]) -> torch.nn.Module:
    """Build a network with random weights, in evaluation mode; nothing is downloaded.

    Parameters
    ----------
    architecture
        One of `ARCHITECTURES`, in any case.
    options
        Arguments of the architecture: `encoder_name`, `in_channels`, `classes`, and whatever else it knows.

    Raises
    ------
    BundleError
        An architecture, encoder or option that the library does not know.

    Examples
    --------
    >>> network = build_network("Unet", {"encoder_name": "resnet18", "in_channels": 4})
    >>> total_stride(network)
    32
    """
    constructor = network_class(architecture)
    known = options_of(architecture)
    unknown = sorted(name for name in options if name not in known)
    if unknown:
        raise BundleError(f"{architecture} has no options {unknown}; it knows {sorted(known)}. Remove or rename them.")
    _check_options(architecture, options)
    # Never pretrained weights, because they would be downloaded only to be overwritten by the bundle's.
    arguments = {**options, "encoder_weights": None}
    try:
        network: torch.nn.Module = constructor(**arguments)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise BundleError(
            f"{architecture} cannot be built with {reprlib.repr(dict(options))}: {error}. {_ENCODERS}"
        ) from error
    return network.eval()


def options_of(architecture: str) -> set[str]:
    """Return the names of an architecture's arguments.

    Raises
    ------
    BundleError
        The library knows no such architecture.
    """
    parameters = inspect.signature(network_class(architecture)).parameters.values()
    # Not whatever else there is, which timm would get, file names among it.
    return {one.name for one in parameters if one.kind is not one.VAR_KEYWORD}


_ENCODERS = (
    "Look for the encoder's name in the documentation of segmentation_models_pytorch, or write 'tu-' and the name of a "
    "timm model."
)


def _check_options(architecture: str, options: Mapping[str, object]) -> None:
    """Refuse an encoder that lies elsewhere, and channels without measure: options come with the files of strangers.

    timm takes names such as ``hf-hub:author/model`` and ``local-dir:/folder``, and reads what is there.
    """
    encoder = options.get("encoder_name", "resnet34")
    name = encoder if isinstance(encoder, str) and re.fullmatch(r"[\w.-]+", encoder) else ""
    encoders = _library().encoders
    if not (
        name in encoders.encoders
        or encoders.is_equivalent_to_timm_universal(name)
        or (name.startswith("tu-") and encoders.timm_universal.timm.is_model(name.removeprefix("tu-")))
    ):
        raise BundleError(
            f"{architecture} cannot be built with the encoder {encoder!r}: the installed libraries have none of that name, and "
            f"nothing is fetched from elsewhere. {_ENCODERS}"
        )
    for option in ("in_channels", "classes"):
        number = options.get(option, 1)
        if type(number) is not int or not 1 <= number <= _MOST_CHANNELS:
            raise BundleError(f"{option} of {architecture} is a number from 1 to {_MOST_CHANNELS:,}; got {number!r}.")


_MOST_CHANNELS = 4096
"""The library fills the weights of each input channel one by one."""
_MOST_PARAMETERS = 2_000_000_000
"""8 GB; the largest encoders that segment images have 300 million."""


def total_stride(network: torch.nn.Module) -> int:
    """Return the total down-sampling of a network of the library, in px: 2 to the encoder's depth, less where it is dilated."""
    return cast("int", cast("torch.nn.Module", network.encoder).output_stride)


def _library() -> ModuleType:
    # Here, because it takes as long to load as all else that a prediction needs, and not every bundle is one of its networks.
    import segmentation_models_pytorch

    return cast("ModuleType", segmentation_models_pytorch)


def network_class(architecture: str) -> Callable[..., torch.nn.Module]:
    """Return the library's class of an architecture, in any case; a `BundleError` where it has none."""
    return cast("Callable[..., torch.nn.Module]", getattr(_library(), _spelling(architecture)))


def _spelling(architecture: str) -> str:
    by_lower = {name.lower(): name for name in ARCHITECTURES if hasattr(_library(), name)}
    found = by_lower.get(architecture.lower().replace("_", "").replace("-", "").replace("+", "plus"))
    if found is None:
        names = sorted(by_lower.values())
        raise BundleError(
            f"The architecture has to be one of {names}; got {architecture!r}.{did_you_mean(architecture, names)} "
            "Open any other network through ModelBundle.from_module, ONNX or torch.export."
        )
    return found


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves new weights as they are in memory, because drawing what is overwritten takes most of opening a bundle.

    Not built on the meta device, because buffers that no file holds would have no values.
    """

    def __torch_function__(  # noqa: PLR0917 - as torch calls it
        self,
        func: Callable[..., object],
        types: Collection[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        given = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (
            torch.Tensor.normal_,
            torch.Tensor.uniform_,
        ):
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


@dataclass(frozen=True, eq=False, kw_only=True)
class SmpSource(NetworkSource):
    """A network of the library: its name, its arguments and its weights."""

    architecture_name: str
    """One of `ARCHITECTURES`."""
    options: Mapping[str, object]
    """Arguments of the architecture that are not its defaults, as JSON values, without `encoder_weights`."""
    state: Mapping[str, torch.Tensor] = field(repr=False)
    """Weights and buffers by name, float32 (counters int64), on the CPU."""
    framework: ClassVar[Framework] = "torch"

    @classmethod
    def from_state(
        cls, architecture: str, options: Mapping[str, object], *, state: Mapping[str, torch.Tensor]
    ) -> "SmpSource":
        """Check that weights fit an architecture, and take them; they are copied.

        Raises
        ------
        BundleError
            The architecture is unknown or the weights do not fit it.
        """
        network = meta_network(architecture, options)
        _refuse_repetitions(state)
        fitting = _fitting_state(network, state, architecture=architecture)
        return cls(architecture_name=_spelling(architecture), options=_config_of(network), state=fitting)

    @classmethod
    def from_network(cls, network: torch.nn.Module) -> "SmpSource | None":
        """Take a network of the library as it is; None where it is another kind, or was changed after it was built."""
        name = type(network).__name__
        library = sys.modules.get("segmentation_models_pytorch")  # whoever has one of its networks has loaded it
        if type(network) is not getattr(library, name, None) or not hasattr(network, "config"):
            return None
        options = _config_of(network)
        try:
            rebuilt = meta_network(name, options)
        except BundleError:
            return None
        # Text and shapes, because a head that was exchanged by hand leaves the recorded arguments as they were.
        if repr(rebuilt) != repr(network) or _shapes(rebuilt) != _shapes(network):
            return None
        return cls(architecture_name=name, options=options, state=_owned(network.state_dict()))

    @classmethod
    def from_bytes(cls, data: bytes, options: Mapping[str, object]) -> "SmpSource":
        """Read what `artifact` wrote.

        Raises
        ------
        BundleError
            The file is truncated, or its weights do not fit the described network.
        """
        try:
            state = safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError) as error:
            raise BundleError(
                f"weights.safetensors cannot be read: {error}. The file is truncated or damaged; copy it again."
            ) from error
        arguments = {name: value for name, value in options.items() if name != "architecture"}
        return cls.from_state(str(options["architecture"]), arguments, state=state)

    @property
    def architecture(self) -> str:
        """Architecture and encoder, such as "UnetPlusPlus/resnet34"."""
        return f"{self.architecture_name}/{self.options.get('encoder_name')}"

    @property
    def n_channels(self) -> int:
        """Input channels."""
        return int(str(self.options["in_channels"]))

    @property
    def n_classes(self) -> int:
        """Output channels."""
        return int(str(self.options["classes"]))

    @cached_property
    def stride(self) -> int:
        """Total down-sampling, in px."""
        return total_stride(meta_network(self.architecture_name, self.options))

    @cached_property
    def n_parameters(self) -> int:
        """Trainable numbers; running averages are not counted, as is usual."""
        return sum(part.numel() for part in meta_network(self.architecture_name, self.options).parameters())

    @cached_property
    def digest(self) -> str:
        """sha256 over weights, architecture and its arguments."""
        header = f"{self.architecture_name}{fingerprint(dict(sorted(self.options.items())))}"
        return digest_of_tensors(self.state, header=header)

    def load_module(self) -> torch.nn.Module:
        """Build the network and load its weights."""
        # Opening a model must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]), _WithoutInitialisation():
            network = build_network(self.architecture_name, self.options)
        network.load_state_dict(dict(self.state))
        return network

    def artifact(self, *, n_layers: int, tile: int, stride: int) -> Artifact:
        """Pack the weights as safetensors."""
        options = {"architecture": self.architecture_name, **self.options}
        return Artifact(kind="smp", data=safetensors.torch.save(dict(self.state)), options=options)


def meta_network(architecture: str, options: Mapping[str, object]) -> torch.nn.Module:
    """Return a network without numbers, to look at; copy it before anything of it is changed, because it is kept.

    Parameters
    ----------
    architecture, options
        As of `build_network`.

    Returns
    -------
    module
        On the meta device.

    Raises
    ------
    BundleError
        An architecture, encoder or option that the library does not know.
    """
    key = f"{architecture} {sorted(options.items())!r}"
    found = _SKELETONS.get(key)
    if found is None:
        found = _bare(architecture, options)
        _check_size(found, architecture, options)
        if len(_SKELETONS) >= _MOST_SKELETONS:
            _SKELETONS.clear()
        _SKELETONS[key] = found
    return found


# Kept, because opening, describing and training one network look at it ten times, and each costs what loading its weights does.
_SKELETONS: dict[str, torch.nn.Module] = {}
_MOST_SKELETONS = 16
_PLAIN = "resnet18"
"""An encoder that can be built without numbers."""


def _bare(architecture: str, options: Mapping[str, object]) -> torch.nn.Module:
    """Build it, without storage where its encoder allows that; see `meta_network`."""
    # Random numbers are drawn even without storage.
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_network(architecture, options).to("meta")
        except (BundleError, NotImplementedError):
            # Some encoders read numbers while they are built; what is really wrong is raised again here.
            plain = torch.nn.Module()
            with suppress(BundleError, NotImplementedError), torch.device("meta"):
                # How large is the rest? Some architectures take no such encoder.
                plain = build_network(architecture, {**options, "encoder_name": _PLAIN})
            _check_size(plain, architecture, options)
            return build_network(architecture, options).to("meta")


def _check_size(network: torch.nn.Module, architecture: str, options: Mapping[str, object]) -> None:
    """Refuse what no machine here could hold, before it is built with numbers."""
    count = sum(one.numel() for one in network.parameters())
    if count > _MOST_PARAMETERS:
        raise BundleError(
            f"{architecture} with {reprlib.repr(dict(options))} would have {count:,} parameters; {_MOST_PARAMETERS:,} are the "
            "limit. Check the channels of its decoder."
        )


def _config_of(network: torch.nn.Module) -> dict[str, object]:
    config = cast("Mapping[str, object]", network.config)
    defaults = {name: known.default for name, known in inspect.signature(type(network)).parameters.items()}
    # Without defaults, because a later release with one more argument would otherwise change every digest.
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in config.items()
        if name in _ALWAYS_STATED or (name != "encoder_weights" and value != defaults.get(name))
    }


_ALWAYS_STATED = ("encoder_name", "in_channels", "classes")


def _shapes(network: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _refuse_repetitions(state: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that take far more memory than what was read: a few stored numbers can be repeated for ever."""
    for name, tensor in state.items():
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
            kind = tensor.layout if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise BundleError(
                f"The weight {str(name)!r} is no dense tensor but {kind}. Save the network's state_dict()."
            )
    stored = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in state.values()}
    needed, limit = sum(one.numel() * one.element_size() for one in state.values()), 4 * sum(stored.values())
    if needed > limit:
        raise BundleError(
            f"The weights take {needed:,} bytes, of which {sum(stored.values()):,} are stored; four times these is the limit. "
            "Save the network's state_dict() without expanded tensors."
        )


def _owned(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: (tensor.detach().cpu().float() if tensor.is_floating_point() else tensor.detach().cpu()).clone()
        for name, tensor in state.items()
    }


def _fitting_state(
    network: torch.nn.Module, state: Mapping[str, torch.Tensor], *, architecture: str
) -> dict[str, torch.Tensor]:
    wanted = _shapes(network)
    renamed = {_deeplab_name(name, wanted=set(wanted)): tensor for name, tensor in state.items()}
    # Averages of weights are often kept without this count, which nothing that is computed depends on.
    renamed |= {
        name: torch.zeros(shape, dtype=torch.int64)
        for name, shape in wanted.items()
        if name.endswith(".num_batches_tracked") and name not in renamed
    }
    missing = sorted(set(wanted) - set(renamed))
    unexpected = sorted(set(renamed) - set(wanted))
    if missing or unexpected:
        raise BundleError(
            f"The weights do not fit {architecture}: {len(missing)} of {len(wanted)} tensors are missing "
            f"{missing[:3]}, {len(unexpected)} are unknown to it {unexpected[:3]}. Check architecture and encoder; a network that was "
            "built with other options than the usual ones, such as decoder_attention_type, is opened from ONNX."
        )
    differing = {name: tuple(tensor.shape) for name, tensor in renamed.items() if tensor.shape != wanted[name]}
    if differing:
        name, shape = next(iter(differing.items()))
        raise BundleError(
            f"The weights do not fit {architecture}: {len(differing)} tensors have another shape, such as {name} with "
            f"{shape} instead of {tuple(wanted[name])}. Check the encoder, the number of layers and of classes."
        )
    return _owned(renamed)


_DEEPLAB_PARTS: Mapping[str, Literal["aspp", "conv", "bn"]] = {"0": "aspp", "1": "conv", "2": "bn"}


def _deeplab_name(name: str, *, wanted: set[str]) -> str:
    """Return the name of a DeepLabV3 decoder tensor in the installed library.

    It was `decoder.N` up to 0.4, `decoder.aspp.N` in 0.5, and has been `decoder.aspp`, `.conv`, `.bn` since 0.6.
    """
    if name in wanted or not name.startswith("decoder."):
        return name
    number, _, rest = name.removeprefix("decoder.").removeprefix("aspp.").partition(".")
    candidates = (f"decoder.aspp.{number}.{rest}", f"decoder.{_DEEPLAB_PARTS.get(number)}.{rest}")
    return next((candidate for candidate in candidates if candidate in wanted), name)
