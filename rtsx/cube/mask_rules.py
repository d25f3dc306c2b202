"""Rules that turn quality data into three levels, by name or as expressions, which are parsed strictly and never evaluated as Python."""

import ast
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtsx.errors import CubeError
from rtsx.names import did_you_mean

COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class BandTerm:
    """What a name of an expression stands for: a band, some of its bits, or one of its classes.

    Examples
    --------
    >>> qa = np.array([[[0b1000, 0b0110]]], np.uint16)
    >>> BandTerm(0, first_bit=1, bits=2).of(qa).tolist(), BandTerm(0, equals=8).of(qa).tolist()
    ([[0, 3]], [[True, False]])
    """

    band: int
    """Index of the band, from 0."""
    first_bit: int = 0
    """Lowest bit that counts."""
    bits: int | None = None
    """Number of bits that count; None for the whole number."""
    equals: int | None = None
    """Class that it is asked for; None for the number itself."""

    def of(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return the number at each pixel, or whether it is the class."""
        band: NDArray[Any] = data[self.band]
        if self.bits is not None:
            if not np.issubdtype(band.dtype, np.integer):
                raise CubeError(
                    f"Bits are read from whole numbers; this quality data is {band.dtype}. Compare it instead."
                )
            if self.first_bit + self.bits > 8 * band.dtype.itemsize:
                raise CubeError(
                    f"Quality data of {band.dtype} has bits 0 to {8 * band.dtype.itemsize - 1}; a rule reads bit "
                    f"{self.first_bit + self.bits - 1}. Check that the rule is made for this data."
                )
            # Through the next unsigned type, because NumPy's shift keeps the sign.
            band = (band.view(f"u{band.dtype.itemsize}") >> self.first_bit) & ((1 << self.bits) - 1)
        return band if self.equals is None else band == self.equals


@dataclass(frozen=True)
class Condition:
    """Something that is true or false at each pixel; a value that can be compared and pickled.

    Examples
    --------
    >>> either = Condition("or", (Condition(">", (BandTerm(0), 6)), Condition("in", (BandTerm(0), 1, 2))))
    >>> either.of(np.array([[[1, 5, 7]]]))
    array([[ True, False,  True]])
    """

    operation: str
    """``and``, ``or``, ``not``, ``in`` or a key of `COMPARISONS`."""
    operands: tuple["Condition | BandTerm | float", ...]
    """What it is applied to; of ``in`` first the value, then the numbers that it may be."""

    def of(self, data: NDArray[Any]) -> NDArray[np.bool_]:
        """Return (y, x) bool of quality data (band, y, x)."""
        # One by one, so that no more than two of many are in memory.
        parts: Iterator[Any] = (one.of(data) if isinstance(one, Condition | BandTerm) else one for one in self.operands)
        match self.operation:
            case "and":
                return reduce(np.logical_and, parts)
            case "or":
                return reduce(np.logical_or, parts)
            case "not":
                return np.asarray(~next(parts))
            case "in":  # instead of np.isin, which casts a number beyond the dtype to one within
                value = np.asarray(next(parts))
                return reduce(np.logical_or, (value == number for number in parts), np.zeros(value.shape, bool))
        return np.asarray(COMPARISONS[self.operation](*parts), bool)


@dataclass(frozen=True)
class BandNames:
    """What can be said about one kind of quality data."""

    name: str
    """Kind of data, such as ``udm2``."""
    bands: int
    """Number of its bands."""
    terms: Mapping[str, BandTerm]
    """What each name stands for."""


def _vocabulary(name: str, bands: Iterable[str], terms: Mapping[str, BandTerm] | None = None) -> BandNames:
    named = {band: BandTerm(index) for index, band in enumerate(bands)}
    return BandNames(name, len(named), MappingProxyType({**named, **(terms or {})}))


def _classes(names: Iterable[str]) -> dict[str, BandTerm]:
    return {name: BandTerm(0, equals=number) for number, name in enumerate(names)}


def _flags(names: Iterable[str], *, first: int = 0, bits: int = 1) -> dict[str, BandTerm]:
    return {name: BandTerm(0, first_bit=first + bits * place, bits=bits) for place, name in enumerate(names)}


_SCL_CLASSES = (
    *("no_data", "saturated_or_defective", "dark_area", "cloud_shadow", "vegetation", "not_vegetated", "water"),
    *("unclassified", "cloud_medium_probability", "cloud_high_probability", "thin_cirrus", "snow"),
)
_QA_PIXEL_FLAGS = ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow", "clear", "water")
_FMASK_FLAGS = ("cirrus", "cloud", "adjacent_to_cloud", "cloud_shadow", "snow", "water")
_QA_PIXEL_CONFIDENCES = ("cloud_confidence", "cloud_shadow_confidence", "snow_confidence", "cirrus_confidence")

SKY_CLASSES = ("no_data", "clear", "cloud", "shadow", "other")
"""Classes of a cloud mask that a model computes, by number; what a model tells beside them is other."""

VOCABULARIES = {
    vocabulary.name: vocabulary
    for vocabulary in (
        _vocabulary("udm2", ("clear", "snow", "shadow", "light_haze", "heavy_haze", "cloud", "confidence", "unusable")),
        _vocabulary("scl", ("scl",), _classes(_SCL_CLASSES)),
        _vocabulary(
            "qa_pixel", ("qa_pixel",), _flags(_QA_PIXEL_FLAGS) | _flags(_QA_PIXEL_CONFIDENCES, first=8, bits=2)
        ),
        _vocabulary("fmask", ("fmask",), _flags(_FMASK_FLAGS) | _flags(("aerosol",), first=6, bits=2)),
        _vocabulary("sky", ("sky",), _classes(SKY_CLASSES)),
    )
}
"""PlanetScope's UDM2 (bands; true where not 0), Sentinel-2's scene classification (classes, and `scl` for the number),
Landsat Collection 2 QA_PIXEL (bits, confidences 0-3, and `qa_pixel` for the number), Fmask of HLS (bits, aerosol 0-3, and
`fmask` for the number), the classes that a model of clouds tells apart (`sky` for the number)."""


def band_names(data: str | Iterable[str]) -> BandNames:
    """Return the names of a known kind of quality data, or of data whose bands the caller names.

    Raises
    ------
    CubeError
        The kind is unknown, or names are missing, doubled or no names.

    Examples
    --------
    >>> sorted(band_names("udm2").terms)[:3]
    ['clear', 'cloud', 'confidence']
    >>> band_names(["haze", "water"]).bands
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


_LONGEST = 1000
"""Characters; a rule of that length is a mistake, and a limit keeps the parser from recursing without end."""

_SIGNS = dict(zip((ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE), COMPARISONS, strict=True))

_GRAMMAR = (
    "An expression is made of names, and, or, not, parentheses, comparisons with numbers, 'in [1, 2]' and bit(3) or "
    "bit(name, 3)."
)


def parse_condition(text: str, vocabulary: BandNames) -> Condition:
    """Return the condition that an expression states.

    Parameters
    ----------
    text
        Names of the vocabulary, ``and``, ``or``, ``not``, parentheses, comparisons of names and numbers, ``in`` and
        ``not in`` with a list of numbers, ``bit(3)`` of data with one band, ``bit(name, 3)`` of any. A name or bit that
        stands alone is true where it is not 0.
    vocabulary
        Names that it may use.

    Raises
    ------
    CubeError
        Anything else is in it. The message names the place, and the names there are.

    Examples
    --------
    >>> import numpy as np
    >>> from rtsx.cube.mask_rules import band_names
    >>> condition = parse_condition("cloud_shadow or scl in [8, 9]", band_names("scl"))
    >>> condition.of(np.array([[[3, 4, 9]]], np.uint8))
    array([[ True, False,  True]])
    """
    # YAML's block strings come with line ends, which mean nothing here.
    line = " ".join(text.split("\n")).strip()
    if not line or len(line) > _LONGEST:
        raise CubeError(f"A mask expression has 1 to {_LONGEST} characters; got {len(line)}. {_GRAMMAR}")
    try:
        tree = ast.parse(line, mode="eval")
    except SyntaxError as error:
        column = error.offset or len(line) + 1  # 0 where the line ends too early
        raise CubeError(f"Mask expression {line!r}, column {column}: {error.msg}. {_GRAMMAR}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        raise CubeError(f"Mask expression {line!r} cannot be parsed: {error}. {_GRAMMAR}") from error
    return _Parser(line, vocabulary).condition(tree.body)


class _Parser:
    """Walks one expression; holds what its errors need."""

    def __init__(self, line: str, vocabulary: BandNames) -> None:
        self.line = line
        self.vocabulary = vocabulary

    def condition(self, node: ast.expr) -> Condition:
        """Return what is true or false."""
        match node:
            case ast.BoolOp(op=ast.And(), values=parts):
                return Condition("and", tuple(self.condition(part) for part in parts))
            case ast.BoolOp(op=ast.Or(), values=parts):
                return Condition("or", tuple(self.condition(part) for part in parts))
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return Condition("not", (self.condition(part),))
            case ast.Compare():
                return self.comparison(node)
            case ast.Name() | ast.Call():
                return Condition("!=", (self.term(node), 0))
        raise self.error(node, f"{self.source(node)} is no condition")

    def comparison(self, node: ast.Compare) -> Condition:
        """Return one relation, or a chain such as ``20 < confidence <= 80``."""
        sides = [node.left, *node.comparators]
        relations: list[Condition] = []
        for left, sign, right in zip(sides, node.ops, node.comparators, strict=False):
            if type(sign) in _SIGNS:
                relations.append(Condition(_SIGNS[type(sign)], (self.value(left), self.value(right))))
            elif isinstance(sign, ast.In | ast.NotIn):
                found = Condition("in", (self.value(left), *self.numbers(right)))
                relations.append(found if isinstance(sign, ast.In) else Condition("not", (found,)))
            else:
                raise self.error(node, "'is' does not compare numbers, write ==")
        if not any(isinstance(side, ast.Name | ast.Call) for side in sides):
            raise self.error(node, f"{self.source(node)} compares no data")
        return relations[0] if len(relations) == 1 else Condition("and", tuple(relations))

    def value(self, node: ast.expr) -> BandTerm | float:
        """Return a side of a comparison."""
        return self.term(node) if isinstance(node, ast.Name | ast.Call) else self.number(node)

    def term(self, node: ast.Name | ast.Call) -> BandTerm:
        """Return a name or a bit."""
        if isinstance(node, ast.Name):
            if node.id not in self.vocabulary.terms:
                near = get_close_matches(node.id, self.vocabulary.terms, n=1)
                hint = f", did you mean {near[0]!r}?" if near else ""
                raise self.error(node, f"unknown name {node.id!r}{hint}")
            return self.vocabulary.terms[node.id]
        match node:
            case ast.Call(func=ast.Name(id="bit"), args=[place], keywords=[]):
                if self.vocabulary.bands > 1:
                    raise self.error(node, f"this data has {self.vocabulary.bands} bands, so write bit(name, number)")
                return BandTerm(0, first_bit=self.bit(place), bits=1)
            case ast.Call(func=ast.Name(id="bit"), args=[ast.Name() as name, place], keywords=[]):
                band = self.term(name)
                if band != BandTerm(band.band):
                    raise self.error(name, f"{name.id!r} is no band")
                return BandTerm(band.band, first_bit=self.bit(place), bits=1)
        raise self.error(node, f"{self.source(node)} is none of bit(number) and bit(name, number)")

    def bit(self, node: ast.expr) -> int:
        """Return the number of a bit."""
        number = self.number(node)
        if not isinstance(number, int) or not 0 <= number < 64:
            raise self.error(node, f"bits are numbered from 0 to 63, got {number}")
        return number

    def numbers(self, node: ast.expr) -> tuple[int | float, ...]:
        """Return the right side of ``in``."""
        if not isinstance(node, ast.List | ast.Tuple | ast.Set):
            raise self.error(node, f"'in' is followed by a list of numbers, got {self.source(node)}")
        return tuple(self.number(part) for part in node.elts)

    def number(self, node: ast.expr) -> int | float:
        """Return a number, with or without a sign."""
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as inner):
                return -self.number(inner)
            case ast.Constant(value=bool()):
                pass  # Python's True is a 1, but an expression that says it means something else
            case ast.Constant(value=int() | float() as number):
                return number
        raise self.error(node, f"{self.source(node)} is no number")

    def source(self, node: ast.expr) -> str:
        """Return the part of the line that a node comes from."""
        return repr(ast.get_source_segment(self.line, node))

    def error(self, node: ast.expr, what: str) -> CubeError:
        """Return an error that shows the place and the names."""
        column = len(self.line.encode()[: node.col_offset].decode()) + 1  # ast counts bytes
        return CubeError(
            f"Mask expression {self.line!r}, column {column}: {what}. Known names of {self.vocabulary.name} are "
            f"{list(self.vocabulary.terms)}. {_GRAMMAR}"
        )


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
    names: tuple[str, ...] = ()
    """What the bands are called, in the order in which the kernel takes them; empty where their place alone counts."""
    named_numbers: tuple[float, ...] | None = None
    """Numbers of whole bands that its expressions name, and 0 where one says what is good. Where all bands hold other nodata of their file than these and 0, a pixel is
    invalid, whatever its bits match. None for a rule that knows its data."""

    def levels(self, data: NDArray[Any], *, nodata: float | None) -> NDArray[np.uint8]:
        """Return the level of each pixel (y, x) of quality data (band, y, x) that declares `nodata`.

        Nodata that no expression names is invalid. But for 0, which in masks more often means that there is no cloud; and named
        rules know their data. A pixel without a number in any band is invalid under every rule.
        """
        quality = self.quality(data)
        is_missing = ~np.isfinite(data)
        if nodata and self.named_numbers is not None and nodata not in self.named_numbers:
            is_missing |= data == nodata
        quality[is_missing.all(axis=0)] = INVALID
        return quality

    def require_dtype(self, dtype: np.dtype[Any]) -> None:
        """Raise where the rule cannot read quality data of a dtype, before any is read.

        Raises
        ------
        CubeError
            It is no number, or has not the bits of the rule.
        """
        if dtype.kind not in "biuf":
            raise CubeError(
                f"Quality data are numbers; these are {dtype}. Store them as uint8 or another whole number."
            )
        self.quality(np.zeros((self.bands, 1, 1), dtype))

    def doubt(self, *, nodata: float | None, dtype: str) -> str | None:
        """Return what is to be said where 0 is declared missing and counts as good; None where that is settled."""
        if nodata != 0 or self.bands > 1 or self.named_numbers is None or 0 in self.named_numbers:
            return None
        if self.quality(np.zeros((1, 1, 1), dtype))[0, 0] != GOOD:
            return None
        return (
            f"declares nodata 0, and the rule {self.name!r} does not name 0, which counts as good. Where 0 is missing, say so in invalid:, "
            f"by `{''.join(self.names) or 'b1'} == 0` and `or` between it and others; where it is clear ground, say with good: what can be trusted."
        )


def band_places(names: Sequence[str], described: Sequence[str | None]) -> tuple[int, ...]:
    """Return where the bands of a rule lie among those that file or item describes: by their names, else as they come.

    Case, punctuation and the order of words do not matter, so that ``haze_light`` is ``Light haze map``.

    Raises
    ------
    CubeError
        A name stands at another place, and not all are found.

    Examples
    --------
    >>> band_places(["cloud", "light_haze"], ["Light haze map", "Cloud"]), band_places(["cloud", "haze"], [None, None])
    ((1, 0), (0, 1))
    """
    as_they_come, described_words = tuple(range(len(described))), [band_words(one or "") for one in described]
    if len(names) < 2 or len(names) != len(described):
        return as_they_come
    found = [[place for place, words in enumerate(described_words) if words == band_words(name)] for name in names]
    if all(len(places) == 1 for places in found):
        return tuple(places[0] for places in found)
    if all(own in places for own, places in enumerate(found) if places):
        return as_they_come
    raise CubeError(
        f"A mask rule reads the bands {list(names)}; these are described as {list(described)}, in another order and not all by "
        f"these names. Name them so in the file or item, or say their numbers in the order of the rule, as `bands: {[*range(len(names), 0, -1)]}`."
    )


_NOISE = frozenset({"map", "mask", "data", "band", "pixels"})
"""Words that Planet adds to the names of its bands, as in ``Light haze map`` and ``Unusable data mask``."""


def band_words(name: str) -> frozenset[str]:
    """Return the words of a band's name, in which ``LightHaze`` has two."""
    words = frozenset(
        re.findall(r"[a-z]+|\d+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower().replace("udm1", "unusable"))
    )
    return words - _NOISE or words


@dataclass(frozen=True)
class _Stated:
    """Kernel of a rule that was stated in expressions."""

    invalid: Condition | None
    low: Condition | None
    good: Condition | None

    def __call__(self, data: NDArray[Any]) -> NDArray[np.uint8]:
        """Level of each pixel; the lower level wins."""
        quality = np.full(data.shape[1:], GOOD if self.good is None else INVALID, np.uint8)
        for condition, level in ((self.good, GOOD), (self.low, LOW), (self.invalid, INVALID)):
            if condition is not None:
                quality[condition.of(data)] = level
        return quality


def mask_rule(rule: str | Mapping[str, str], *, data: str | Iterable[str] | None) -> MaskRule:
    """Return a rule by its name, or as expressions over the names of quality data.

    Parameters
    ----------
    rule
        A key of `MASK_RULES`; one expression, which says what is good while all else is invalid; or expressions for
        some of ``invalid``, ``low`` and ``good``. Where several hold, the lowest level wins. Where none holds, a pixel is
        invalid if the rule says what is good, else good. Nodata of its file is invalid, unless it is 0 or an expression names it by ``==``, ``!=`` or ``in``.
    data
        ``"udm2"``, ``"scl"``, ``"qa_pixel"`` or ``"fmask"``, or the names of the bands. Not needed for a known rule.

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
        raise CubeError(
            f"Known mask rules are {sorted(MASK_RULES)}; got {rule!r}.{did_you_mean(str(rule), MASK_RULES)} An expression needs the kind of quality data "
            "that it reads, such as 'udm2'."
        )
    vocabulary = band_names(data)
    texts = {"good": rule} if isinstance(rule, str) else dict(rule)
    unknown = sorted(set(texts) - set(_LEVELS))
    if unknown or not texts:
        raise CubeError(f"A mask rule has expressions for some of {list(_LEVELS)}; got {sorted(texts)}.")
    for level, text in texts.items():
        if not isinstance(text, str):
            raise CubeError(f"A mask expression is text; {level!r} is {text!r}. Put it into quotes.")
    name = "; ".join(f"{level}: {' '.join(texts[level].split())}" for level in _LEVELS if level in texts)
    found = _stated(texts, vocabulary, name=name)
    stated = (parse_condition(text, vocabulary) for text in texts.values())
    named = {number for one in stated for number in _named_numbers(one)} | ({0} if "good" in texts else set())
    return replace(found, named_numbers=tuple(sorted(named)))


def _named_numbers(condition: Condition) -> Iterator[float]:
    """Yield the numbers that whole bands are said to be, or not to be."""
    first, *others = condition.operands
    if isinstance(first, BandTerm) and first.bits is None:
        if first.equals is not None:
            yield first.equals
        elif condition.operation in ("==", "!=", "in"):
            yield from (number for number in others if isinstance(number, int | float))
    for one in condition.operands:
        if isinstance(one, Condition):
            yield from _named_numbers(one)


def quality_level(data: NDArray[Any], rule: str | MaskRule) -> NDArray[np.uint8]:
    """Return the level of each pixel by a rule.

    Parameters
    ----------
    data
        Quality data (band, y, x).
    rule
        A `MaskRule`, or ``"tss-v1"`` or ``"darts-v2"`` (UDM2, 8 bands), ``"sentinel2-scl"``, ``"landsat-qa-pixel"`` or
        ``"hls-fmask"`` (1 band each).

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


def _stated(texts: Mapping[str, str], vocabulary: BandNames, *, name: str) -> MaskRule:
    conditions = {level: parse_condition(texts[level], vocabulary) if level in texts else None for level in _LEVELS}
    return MaskRule(name, vocabulary.bands, _Stated(**conditions), names=tuple(vocabulary.terms)[: vocabulary.bands])


_NAMED: dict[str, tuple[str, dict[str, str]]] = {
    "tss-v1": ("udm2", {"good": "clear and not (snow or shadow or heavy_haze or cloud or unusable)"}),
    "darts-v2": ("udm2", {"invalid": "unusable", "low": "snow or shadow or light_haze or heavy_haze or cloud"}),
    "sentinel2-scl": ("scl", {"invalid": "scl in [0, 1]", "low": "scl in [3, 8, 9, 11]"}),
    "landsat-qa-pixel": (
        "qa_pixel",
        {"invalid": "fill", "low": "dilated_cloud or cirrus or cloud or cloud_shadow or snow"},
    ),
    "model-sky": ("sky", {"invalid": "no_data", "low": "not clear"}),
    "hls-fmask": ("fmask", {"invalid": "fmask == 255", "low": "cloud or adjacent_to_cloud or cloud_shadow or snow"}),
}

MASK_RULES = {name: _stated(texts, band_names(data), name=name) for name, (data, texts) in _NAMED.items()}
"""Rules by name: two for the eight bands of PlanetScope's UDM2, one for the scene classification of Sentinel-2, one for
QA_PIXEL of Landsat Collection 2, one for Fmask of HLS, and one for what a model says."""
