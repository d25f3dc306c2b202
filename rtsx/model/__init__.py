"""Frozen models that turn batches of tiles into probabilities, read from every format that the field has."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
    from rtsx.model.bundle import BundleKeywords, ModelBundle
    from rtsx.model.inputs import (
        LAYER_NAMES,
        PRESETS,
        InputLayer,
        Packing,
        Preset,
        canonical_layers,
        prepare,
        preset_named,
        required_layers,
        valid_pixels,
    )
    from rtsx.model.metadata import OutlineChoice, Reach
    from rtsx.model.network import Network, StubNetwork
    from rtsx.model.receptive_field import measure_receptive_field
    from rtsx.model.smp import ARCHITECTURES, build_network
    from rtsx.model.source import NetworkSource

__getattr__ = lazy(__name__)
