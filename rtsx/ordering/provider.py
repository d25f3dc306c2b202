"""The protocols of providers of scenes and of quads: the few calls that an order needs, the values they pass, and checksums of files."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from rtsx.cube.images import Period
from rtsx.errors import OrderError, RtsxError
from rtsx.ordering.criteria import Scene
from rtsx.parsing import STRICT
from rtsx.storage import plain_folder

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
        """Return the checksum in a STAC ``file:checksum``, or in a bare digest; None for an algorithm that hashlib may not have.

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
    """Return hexadecimal digits of its digests."""
    return 2 * hashlib.new(algorithm, usedforsecurity=False).digest_size


def checksum_of(path: Path, algorithm: str = "sha256") -> Checksum:
    """Return the checksum of a file; memory does not grow with it."""
    with path.open("rb") as file:
        return Checksum(
            algorithm, hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
        )


OF_ONE_ITEM = (RtsxError, ShapelyError, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What one odd item, or the file system because of it, may raise: it concerns no other."""

State = Literal["submitting", "queued", "running", "success", "partial", "failed", "cancelled"]
"""Life of an order: the words of Planet's Orders API, and *submitting* for what may or may not have reached the provider."""
BRINGS_NOTHING: tuple[State, ...] = ("failed", "cancelled")
"""States in which nothing arrives at all."""
OVER: tuple[State, ...] = ("success", "partial", *BRINGS_NOTHING)
"""States after which nothing more arrives."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Scenes that are ordered together, under a name that no other order has."""

    name: str
    """Name; the same scenes for the same purpose have the same one, so that the provider can be asked for it."""
    scene_ids: tuple[str, ...]
    """What is ordered, sorted."""
    clip: BaseGeometry | None = None
    """Ground to clip to, in longitude and latitude; None for whole scenes."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file that is ready to be fetched."""

    scene_id: str
    """Scene that it belongs to."""
    asset: str
    """Key of the asset that it becomes."""
    name: str
    """Name of the file, without folders."""
    href: str
    """Path or URL."""
    size: int | None = None
    """Bytes; None where the provider does not say."""
    checksum: Checksum | None = None
    """What its bytes add up to; None where the provider does not say."""
    media_type: str | None = None
    """Media type; None where the provider does not say."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Headers that its request needs; not printed, because they may be a key."""

    @property
    def is_raster(self) -> bool:
        """Whether it has to be a raster, by its name."""
        return PurePosixPath(self.name).suffix.lower() in (".tif", ".tiff", ".jp2")


@dataclass(frozen=True, kw_only=True)
class OrderStatus:
    """What a provider says about an order."""

    order_id: str
    """Id that the provider knows the order by."""
    state: State
    """Where it stands; never *submitting*."""
    message: str = ""
    """The provider's own words, and why it failed."""
    files: tuple[RemoteFile, ...] = ()
    """What can be fetched; only for *success* and *partial*."""
    faults: Mapping[str, OrderError] = field(default_factory=dict)
    """Why files of a scene cannot be named, by scene; the other scenes are not concerned."""


class Provider(Protocol):
    """Anything that scenes can be had from.

    One thread at a time calls it. Errors are `OrderError`; one that may pass by itself says so.
    """

    batch_size: int
    """Scenes at most in one order."""
    can_clip: bool
    """Whether it delivers, and charges, the ground of the region only."""

    def search(self, region: BaseGeometry, period: Period) -> tuple[Scene, ...]:
        """Return scenes that meet a region (longitude and latitude) within a period; nothing is paid."""

    def submit(self, batch: Batch) -> OrderStatus:
        """Order a batch once: where the provider has an order of that name, this answers for it and orders nothing."""

    def status(self, batch: Batch, order_id: str) -> OrderStatus:
        """Return where an order stands, with fresh links to its files when there are any; `OrderNotFoundError` where it is not known."""

    def describe(self, scene_id: str, files: Sequence[Path]) -> Mapping[str, Any]:
        """Return a STAC item without assets for a delivered scene: its own words on geometry, time and properties.

        Parameters
        ----------
        scene_id
            Which scene.
        files
            What has been delivered for it, on the local disk; among them may be the provider's metadata.
        """


@dataclass(frozen=True, kw_only=True)
class BucketDelivery:
    """A bucket that Planet writes to; its keys are with Planet's Destinations API, and rtsx never sees them.

    Raises
    ------
    OrderError
        The bucket is no address, or the destination is the default one.
    """

    __pydantic_config__ = STRICT

    destination: str
    """Reference of a destination, such as pl:destinations/my-bucket-qIjRfLd; `planet destinations list` shows them."""
    bucket: str
    """Address that rtsx reads the bucket by, such as gs://my-bucket."""
    path_prefix: str = ""
    """Folder in the bucket; one that is written as maps//x or maps/./x is maps/x."""
    base_url: str | None = None
    """Address of Planet's APIs; Planet's own if left out."""

    def __post_init__(self) -> None:
        """Check what means the same in every working folder, and to every user."""
        if self.destination == "pl:destinations/default":
            raise OrderError(
                "pl:destinations/default is whichever destination is the default now, so that what was ordered cannot be told by it. Name "
                "the destination's own reference; `planet destinations list` shows it."
            )
        if "://" not in self.bucket and not self.bucket.startswith("/"):
            raise OrderError(
                f"An address such as gs://my-bucket was expected, got {self.bucket!r}. Add its scheme, or name the folder that it is "
                "mounted at by its absolute path."
            )
        end = "/" if self.path_prefix.endswith("/") else ""  # which Planet is given
        object.__setattr__(self, "path_prefix", f"{plain_folder(self.path_prefix)}{end}")

    @property
    def place(self) -> str:
        """Where Planet writes to; with the mosaic it says which orders are the same."""
        return f"{self.destination} {plain_folder(self.path_prefix)}"

    def folder_of(self, order_id: str) -> str:
        """Return the address of the folder of an order."""
        return "/".join(filter(None, (self.bucket.rstrip("/"), plain_folder(self.path_prefix), order_id)))


class QuadProvider(Protocol):
    """Who takes orders of the quads of one mosaic for one place; one thread at a time calls it, and errors are `OrderError`."""

    batch_size: int
    """Quads at most in one order."""

    def placed(self) -> Iterable[tuple[Batch, OrderStatus]]:
        """Return orders of this mosaic for this place that the provider shows to this user, oldest first; a warning if others' are not shown."""

    def submit(self, batch: Batch) -> OrderStatus:
        """Order a batch once; see `Provider`."""

    def status(self, batch: Batch, order_id: str) -> OrderStatus:
        """Return where an order stands; see `Provider`."""
