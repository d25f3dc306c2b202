"""Changes of training tiles: turned, cut, blurred, brightened or with a channel missing, on the batch and by a key.

They change stored pixels before `prepare`, so what a network learns from went through the scaling that inference uses; only
`drop_channels` comes after it. Every random number is drawn from a generator that the key seeds, on the CPU, so that a key
means the same on every device.
"""

from rtsx.training.augment.applying import augment, drop_channels
from rtsx.training.augment.checking import check_augmentations, check_dropped
from rtsx.training.augment.registry import AUGMENTATIONS

__all__ = ["AUGMENTATIONS", "augment", "check_augmentations", "check_dropped", "drop_channels"]
