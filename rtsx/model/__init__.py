"""Frozen models that turn batches of tiles into probabilities, read from every format that the field has."""

from rtsx.model.bundle import ModelBundle
from rtsx.model.inputs import InputLayer, Packing, prepare, required_layers, valid_pixels
from rtsx.model.layer_names import LAYER_NAMES, canonical_layers
from rtsx.model.network import Network, StubNetwork
from rtsx.model.presets import PRESETS, Preset, preset_named
from rtsx.model.reach import Reach, measure_reach
from rtsx.model.smp import ARCHITECTURES, build_network
from rtsx.model.source import NetworkSource

__all__ = [
    "ARCHITECTURES",
    "LAYER_NAMES",
    "PRESETS",
    "InputLayer",
    "ModelBundle",
    "Network",
    "NetworkSource",
    "Packing",
    "Preset",
    "Reach",
    "StubNetwork",
    "build_network",
    "canonical_layers",
    "measure_reach",
    "prepare",
    "preset_named",
    "required_layers",
    "valid_pixels",
]
