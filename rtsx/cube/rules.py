"""Rules that read quality data to three levels, by name or as expressions."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.cube.conditions import Condition
from rtsx.cube.expression import parse_condition
from rtsx.cube.vocabulary import Vocabulary, vocabulary_of
from rtsx.errors import CubeError

__all__ = ["GOOD", "INVALID", "LOW", "MASK_RULES", "MaskRule", "mask_rule", "quality_level"]

INVALID, LOW, GOOD = 0, 1, 2
_LEVELS = ("invalid", "low", "good")


@dataclass(frozen=True)
class MaskRule:
    """One way to read quality data; a value that can be pickled."""

    name: str
    """Name of a known rule, or the expressions that it was made of."""
    bands: int
    """Number of bands of the quality data."""
    quality: Callable[[NDArray[Any]], NDArray[np.uint8]]
    """Kernel from (band, y, x) to the level of each pixel (y, x): 0 invalid, 1 low quality, 2 good."""


@dataclass(frozen=True)
class _Stated:
    """Kernel of a rule that was stated in expressions."""

    invalid: Condition | None
    low: Condition | None
    good: Condition | None

    def __call__(self, data: NDArray[Any]) -> NDArray[np.uint8]:
        """Level of each pixel; the lower level wins."""
        shape = data.shape[1:]
        if self.good is None:
            quality = np.full(shape, GOOD, np.uint8)
        else:
            quality = np.where(self.good.of(data), np.uint8(GOOD), np.uint8(INVALID))
        if self.low is not None:
            np.copyto(quality, np.uint8(LOW), where=self.low.of(data))
        if self.invalid is not None:
            np.copyto(quality, np.uint8(INVALID), where=self.invalid.of(data))
        return quality


def mask_rule(rule: str | Mapping[str, str], *, data: str | Iterable[str] | None) -> MaskRule:
    """A rule by its name, or as expressions over the names of quality data.

    Parameters
    ----------
    rule
        A key of `MASK_RULES`; one expression, which says what is good while all else is invalid; or expressions for
        some of ``invalid``, ``low`` and ``good``. Where several hold, the lowest level wins. Where none holds, a pixel is
        invalid if the rule says what is good, else good.
    data
        ``"udm2"``, ``"scl"`` or ``"qa_pixel"``, or the names of the bands. Not needed for a known rule.

    Raises
    ------
    CubeError
        A level, a name or an expression is not known; the message shows the place and the names there are.

    Examples
    --------
    >>> rule = mask_rule({"invalid": "unusable", "low": "cloud or shadow or snow"}, data="udm2")
    >>> udm2 = np.zeros((8, 1, 3), np.uint8)
    >>> udm2[5, 0, 1], udm2[7, 0, 2] = 1, 1  # cloud; unusable
    >>> rule.quality(udm2)
    array([[2, 1, 0]], dtype=uint8)
    >>> mask_rule("clear and confidence >= 80", data="udm2").name
    'good: clear and confidence >= 80'
    """
    if isinstance(rule, str) and rule in MASK_RULES:
        return MASK_RULES[rule]
    if data is None:
        near = get_close_matches(str(rule), MASK_RULES, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise CubeError(
            f"Known mask rules are {sorted(MASK_RULES)}; got {rule!r}. {hint}An expression needs the kind of quality data "
            "that it reads, such as 'udm2'."
        )
    vocabulary = vocabulary_of(data)
    texts = {"good": rule} if isinstance(rule, str) else dict(rule)
    unknown = sorted(set(texts) - set(_LEVELS))
    if unknown or not texts:
        raise CubeError(f"A mask rule has expressions for some of {list(_LEVELS)}; got {sorted(texts)}.")
    for level, text in texts.items():
        if not isinstance(text, str):
            raise CubeError(f"A mask expression is text; {level!r} is {text!r}. Put it into quotes.")
    name = "; ".join(f"{level}: {' '.join(texts[level].split())}" for level in _LEVELS if level in texts)
    return _stated(texts, vocabulary, name=name)


def quality_level(data: NDArray[Any], rule: str | MaskRule) -> NDArray[np.uint8]:
    """Level of each pixel by a rule.

    Parameters
    ----------
    data
        Quality data (band, y, x).
    rule
        A `MaskRule`, or ``"tss-v1"`` or ``"darts-v2"`` (UDM2, 8 bands), ``"sentinel2-scl"`` (1 band) or
        ``"landsat-qa-pixel"`` (1 band).

    Returns
    -------
    ndarray
        (y, x) uint8: 0 invalid, 1 low quality, 2 good. ``tss-v1`` knows no level 1.

    Raises
    ------
    CubeError
        Unknown rule, or the wrong number of bands.

    Examples
    --------
    >>> udm2 = np.zeros((8, 1, 3), np.uint8)
    >>> udm2[0], udm2[3, 0, 1], udm2[7, 0, 2] = 1, 1, 1  # all clear; light haze; unusable
    >>> quality_level(udm2, "darts-v2")
    array([[2, 1, 0]], dtype=uint8)
    """
    found = rule if isinstance(rule, MaskRule) else mask_rule(rule, data=None)
    if data.ndim != 3 or data.shape[0] != found.bands:
        raise CubeError(
            f"Rule {found.name!r} reads data (band, y, x) with {found.bands} bands; got shape {data.shape}."
        )
    return found.quality(data)


def _stated(texts: Mapping[str, str], vocabulary: Vocabulary, *, name: str) -> MaskRule:
    conditions = {level: parse_condition(texts[level], vocabulary) if level in texts else None for level in _LEVELS}
    return MaskRule(name, vocabulary.bands, _Stated(**conditions))


_NAMED: dict[str, tuple[str, dict[str, str]]] = {
    "tss-v1": ("udm2", {"good": "clear and not (snow or shadow or heavy_haze or cloud or unusable)"}),
    "darts-v2": ("udm2", {"invalid": "unusable", "low": "snow or shadow or light_haze or heavy_haze or cloud"}),
    "sentinel2-scl": ("scl", {"invalid": "scl in [0, 1]", "low": "scl in [3, 8, 9, 11]"}),
    "landsat-qa-pixel": (
        "qa_pixel",
        {"invalid": "fill", "low": "dilated_cloud or cirrus or cloud or cloud_shadow or snow"},
    ),
}

MASK_RULES = {name: _stated(texts, vocabulary_of(data), name=name) for name, (data, texts) in _NAMED.items()}
"""Rules by name: two for the eight bands of PlanetScope's UDM2, one for the scene classification of Sentinel-2, one for
QA_PIXEL of Landsat Collection 2."""
