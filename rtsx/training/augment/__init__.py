"""Changes of training tiles: turned, cut, blurred, brightened or with a channel missing, on the batch and by a key.

They change stored pixels before `prepare`, so what a network learns from went through the scaling that inference uses; only
`drop_channels` comes after it. Every random number is drawn from a generator that the key seeds, on the CPU, so that a key
means the same on every device.
"""

from rtsx.training.augment.pipeline import AUGMENTATIONS, augment, check_augmentations, check_dropped, drop_channels

__all__ = ["AUGMENTATIONS", "augment", "check_augmentations", "check_dropped", "drop_channels"]
