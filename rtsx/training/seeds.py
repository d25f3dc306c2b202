"""Seeds: one number for each thing that is drawn, so that no draw depends on how many came before it."""

import hashlib

__all__ = ["seed_of"]


def seed_of(*parts: int | str) -> int:
    """A seed of 64 bits for numbers and words that say what is drawn; others for any other parts.

    A digest, instead of adding the parts up: epoch 1 of seed 0 must not repeat epoch 0 of seed 1.

    Examples
    --------
    >>> seed_of("draw", 0, 1) == seed_of("draw", 1, 0)
    False
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")
