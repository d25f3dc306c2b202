"""What the bytes of a file add up to."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from rtsx.errors import OrderError

__all__ = ["Checksum", "checksum_of"]

_CODES = {"11": "sha1", "12": "sha256", "13": "sha512", "d501": "md5"}
"""Multihash codes of the algorithms that hashlib has everywhere."""
_MULTIHASH = re.compile(
    r"(?P<code>([89a-f][0-9a-f]){0,3}[0-7][0-9a-f])(?P<length>[0-7][0-9a-f])(?P<digest>([0-9a-f]{2})+)"
)


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
        length = _digits(self.algorithm)
        if len(self.digest) != length:
            raise OrderError(f"A {self.algorithm} checksum has {length} hexadecimal digits; got {self.digest!r}.")

    @classmethod
    def from_multihash(cls, text: object) -> "Checksum | None":
        """The checksum in a STAC ``file:checksum``, or in a bare digest; None for an algorithm that hashlib may not have.

        Raises
        ------
        OrderError
            It is neither.

        Examples
        --------
        >>> Checksum.from_multihash("1114" + 20 * "0a").algorithm, Checksum.from_multihash(32 * "0a").algorithm
        ('sha1', 'sha256')
        """
        plain = str(text).lower()
        parts = _MULTIHASH.fullmatch(plain)
        if parts and 2 * int(parts["length"], 16) == len(parts["digest"]):
            return cls(_CODES[parts["code"]], parts["digest"]) if parts["code"] in _CODES else None
        bare = {_digits(algorithm): algorithm for algorithm in _CODES.values()}.get(len(plain))
        if bare is None or not re.fullmatch("[0-9a-f]+", plain):
            raise OrderError(f"{text!r} is no checksum: a multihash in hexadecimal digits was expected.")
        return cls(bare, plain)

    @property
    def multihash(self) -> str:
        """As a STAC ``file:checksum`` has it."""
        code = next(code for code, algorithm in _CODES.items() if algorithm == self.algorithm)
        return f"{code}{len(self.digest) // 2:02x}{self.digest}"


def _digits(algorithm: str) -> int:
    """Hexadecimal digits of its digests."""
    return 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size


def checksum_of(path: Path, algorithm: str = "sha256") -> Checksum:
    """The checksum of a file; memory does not grow with it."""
    with path.open("rb") as file:
        return Checksum(
            algorithm, hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
        )
