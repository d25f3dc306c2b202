"""What the bytes of a file add up to."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from rtsx.errors import OrderError

__all__ = ["Checksum", "checksum_of"]

_CODES = {"11": "sha1", "12": "sha256", "13": "sha512", "d501": "md5"}
"""Multihash codes of the algorithms that hashlib has everywhere."""


@dataclass(frozen=True)
class Checksum:
    """An algorithm and what it gives.

    Raises
    ------
    OrderError
        The digest is none of that algorithm.
    """

    algorithm: str
    """Name of the algorithm as hashlib has it."""
    digest: str
    """Hexadecimal, lower case."""

    def __post_init__(self) -> None:
        """Check the length, because a digest that is cut off matches nothing."""
        length = 2 * hashlib.new(self.algorithm, usedforsecurity=False).digest_size
        if len(self.digest) != length:
            raise OrderError(f"A {self.algorithm} checksum has {length} hexadecimal digits; got {self.digest!r}.")

    @classmethod
    def from_multihash(cls, text: str) -> "Checksum | None":
        """The checksum in a STAC ``file:checksum``; None for an algorithm that hashlib may not have.

        Examples
        --------
        >>> Checksum.from_multihash("1114" + 20 * "0a").algorithm
        'sha1'
        """
        text = text.lower()
        for code, algorithm in _CODES.items():
            length = f"{hashlib.new(algorithm, usedforsecurity=False).digest_size:02x}"
            if text.startswith(code + length) and len(text) == len(code + length) + 2 * int(length, 16):
                return cls(algorithm, text[len(code + length) :])
        return None

    @property
    def multihash(self) -> str:
        """As a STAC ``file:checksum`` has it."""
        code = next(code for code, algorithm in _CODES.items() if algorithm == self.algorithm)
        return f"{code}{len(self.digest) // 2:02x}{self.digest}"


def checksum_of(path: Path, algorithm: str = "sha256") -> Checksum:
    """The checksum of a file; memory does not grow with it."""
    with path.open("rb") as file:
        return Checksum(
            algorithm, hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
        )
