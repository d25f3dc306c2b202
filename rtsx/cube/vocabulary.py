"""The names that a mask expression may use, by the kind of quality data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from rtsx.cube.conditions import Term
from rtsx.errors import CubeError

__all__ = ["VOCABULARIES", "Vocabulary", "vocabulary_of"]


@dataclass(frozen=True)
class Vocabulary:
    """What can be said about one kind of quality data."""

    name: str
    """Kind of data, such as ``udm2``."""
    bands: int
    """Number of its bands."""
    terms: Mapping[str, Term]
    """What each name stands for."""


def _vocabulary(name: str, bands: Iterable[str], terms: Mapping[str, Term] | None = None) -> Vocabulary:
    named = {band: Term(index) for index, band in enumerate(bands)}
    return Vocabulary(name, len(named), MappingProxyType({**named, **(terms or {})}))


_SCL_CLASSES = (
    "no_data",
    "saturated_or_defective",
    "dark_area",
    "cloud_shadow",
    "vegetation",
    "not_vegetated",
    "water",
    "unclassified",
    "cloud_medium_probability",
    "cloud_high_probability",
    "thin_cirrus",
    "snow",
)
_QA_PIXEL_FLAGS = ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "clear", "water")
_QA_PIXEL_CONFIDENCES = ("cloud_confidence", "cloud_shadow_confidence", "snow_confidence", "cirrus_confidence")

VOCABULARIES = {
    vocabulary.name: vocabulary
    for vocabulary in (
        _vocabulary(
            "udm2",
            ("clear", "snow", "shadow", "light_haze", "heavy_haze", "cloud", "confidence", "unusable"),
        ),
        _vocabulary("scl", ("scl",), {name: Term(0, equals=number) for number, name in enumerate(_SCL_CLASSES)}),
        _vocabulary(
            "qa_pixel",
            ("qa_pixel",),
            {name: Term(0, first_bit=bit, bits=1) for bit, name in enumerate(_QA_PIXEL_FLAGS)}
            | {name: Term(0, first_bit=8 + 2 * i, bits=2) for i, name in enumerate(_QA_PIXEL_CONFIDENCES)},
        ),
    )
}
"""PlanetScope's UDM2 (bands; true where not 0), Sentinel-2's scene classification (classes, and `scl` for the number),
Landsat Collection 2 QA_PIXEL (bits, confidences 0-3, and `qa_pixel` for the number)."""


def vocabulary_of(data: str | Iterable[str]) -> Vocabulary:
    """The names of a known kind of quality data, or of data whose bands the caller names.

    Raises
    ------
    CubeError
        The kind is unknown, or names are missing, doubled or no names.

    Examples
    --------
    >>> sorted(vocabulary_of("udm2").terms)[:3]
    ['clear', 'cloud', 'confidence']
    >>> vocabulary_of(["haze", "water"]).bands
    2
    """
    if isinstance(data, str):
        if data not in VOCABULARIES:
            raise CubeError(
                f"Known quality data are {sorted(VOCABULARIES)}; got {data!r}. For other data give the names of its bands."
            )
        return VOCABULARIES[data]
    names = tuple(data)
    odd = [name for name in names if not name.isidentifier() or name in ("and", "or", "not", "in", "bit")]
    if not names or odd or len(set(names)) < len(names):
        raise CubeError(
            "Bands of quality data have one different name each, of letters, digits and underscores; got "
            f"{list(names)}. Rename {odd or 'them'}."
        )
    return _vocabulary("+".join(names), names)
