"""Arguments of public functions: of the type that their annotation says, or refused by name."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, TypeVar, Union, Unpack, cast, get_args, get_origin, get_type_hints

from rtsx.errors import RtsxError

_T = TypeVar("_T", bound=Callable[..., Any])


def typed(error: type[RtsxError], *, but: Sequence[str] = ()) -> Callable[[_T], _T]:
    """Decorate a public function or dataclass to refuse arguments that are not of the type of their annotation.

    So that a path where a table is meant, or a module where a bundle is, is named at the door instead of deep inside. Whole
    numbers are numbers, lists stand for tuples, arrays of one dimension become lists, and what an annotation cannot tell at run
    time is taken.

    Parameters
    ----------
    error
        What is raised; its message names function, parameter, both types and, for paths and modules, what opens them.
    but
        Parameters that the function itself explains better.

    Examples
    --------
    >>> from rtsx.errors import GridError
    >>> @typed(GridError)
    ... def halved(length: int) -> int:
    ...     return length // 2
    >>> halved("8")
    Traceback (most recent call last):
    ...
    rtsx.errors.GridError: halved takes `length` as a whole number; got the text '8'. See help(halved).
    """

    def decorated(target: Any) -> Any:
        function = target.__init__ if inspect.isclass(target) else target
        stated, hints = inspect.signature(function), dict[str, Any]()
        signature, name = _unpacked(stated), target.__qualname__

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            if not hints:  # at the first call, when names that are only imported for types may be loaded
                hints.update(_hints(function))
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as cause:
                if signature is not stated:
                    raise TypeError(f"{name}() {cause}") from None
                return function(*args, **kwargs)  # which says best what is missing or too many
            for parameter, value in bound.arguments.items():
                hint = hints.get(parameter, Any)
                if parameter in but or _fits(value, hint):
                    continue
                plain = value.tolist() if getattr(value, "ndim", None) in (0, 1) and hasattr(value, "tolist") else value
                if not _fits(plain, hint):
                    raise error(
                        f"{name} takes `{parameter}` as {_words(hint)}; got {_described(value)}. {_cure(value, hint, name=name)}"
                    )
                bound.arguments[parameter] = plain
            return function(*bound.args, **bound.kwargs)

        if not inspect.isclass(target):
            checked.__signature__ = signature  # type: ignore[attr-defined]  # what help and completion read
            return checked
        target.__init__ = checked  # type: ignore[method-assign]  # what a decorator of a class is for
        return target

    return cast("Callable[[_T], _T]", decorated)


def _unpacked(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature with each key of ``**stated: Unpack[...]`` as a keyword; None stands for what is left out."""
    parameters = list(signature.parameters.values())
    if not parameters or get_origin(parameters[-1].annotation) is not Unpack:
        return signature
    (keywords,) = get_args(parameters.pop().annotation)
    hints = get_type_hints(keywords).items()
    parameters += [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint) for key, hint in hints
    ]
    return signature.replace(parameters=parameters)


def _hints(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Yield annotations by parameter; `Any` where one names what is not loaded, of which then nobody has an instance."""
    names = {**sys.modules, **inspect.unwrap(function).__globals__}
    for parameter, kind in _unpacked(inspect.signature(function)).parameters.items():
        if kind.annotation is not kind.empty and kind.kind not in (kind.VAR_POSITIONAL, kind.VAR_KEYWORD):
            one = SimpleNamespace(__annotations__={parameter: kind.annotation})
            try:
                yield parameter, get_type_hints(one, globalns=names)[parameter]
            except (NameError, AttributeError):
                yield parameter, Any


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, tuple({type(one) for one in inner}))
    if hint is None or hint is NoneType:
        return value is None
    kind = {int: Integral, float: Real, Path: os.PathLike}.get(hint, origin or hint)
    if not inspect.isclass(kind):
        return True  # type variables and forward references
    if getattr(kind, "_is_protocol", False) and not issubclass(kind, Iterable | os.PathLike):
        return all(hasattr(value, name) for name in vars(kind) if not name.startswith("_"))
    if issubclass(kind, tuple) or kind is Sequence:
        kind = Sequence
    if isinstance(value, str | bytes) and issubclass(kind, Iterable) and not issubclass(kind, str | bytes):
        return False  # a text is a sequence of letters to Python, and never to us
    try:
        if not isinstance(value, kind) or (kind in (Integral, Real) and isinstance(value, bool)):
            return False
    except TypeError:
        return True
    if isinstance(value, Mapping) and len(inner) == 2:
        return all(_fits(key, inner[0]) and _fits(one, inner[1]) for key, one in value.items())
    if isinstance(value, Sequence) and kind is Sequence and inner:
        fixed = origin is tuple and inner[-1] is not Ellipsis
        if fixed:
            return len(value) == len(inner) and all(map(_fits, value, inner))
        return all(_fits(one, inner[0]) for one in value)
    return True


def _words(hint: Any) -> str:
    """Return what an annotation means."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        paths = [one for one in inner if one is Path or get_origin(one) is os.PathLike]
        rest = [one for one in inner if one not in paths and not (paths and one is str)]
        return " or ".join(dict.fromkeys([*(["a path"] if paths else []), *map(_words, rest)]))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    plain = {
        int: "a whole number",
        float: "a number",
        str: "a text",
        bool: "True or False",
        NoneType: "None",
        None: "None",
    }
    if hint in plain:
        return plain[hint]
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"({', '.join(map(_words, inner))})"
    if origin is not None and inspect.isclass(origin) and issubclass(origin, Mapping) and len(inner) == 2:
        return f"a mapping from {_words(inner[0])} to {_words(inner[1])}"
    if origin is not None and inspect.isclass(origin) and issubclass(origin, Iterable) and inner:
        return f"a list of {_words(inner[0])}"
    if not inspect.isclass(origin or hint):
        return str(hint)
    kind = origin or hint
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


def _described(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, os.PathLike | str):
        return f"the {'text' if isinstance(value, str) else 'path'} {os.fspath(value)!r:.80}"
    if inspect.isclass(value):
        return f"the class {value.__qualname__}"
    described = f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{described} {value!r:.60}" if isinstance(value, int | float | list | tuple | dict) else f"a {described}"


def _cure(value: object, hint: Any, *, name: str) -> str:
    wanted = str(hint)
    if isinstance(value, str) and "Sequence[str]" in wanted:
        return f"Write [{value!r}]."
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        for kind, opener in (
            ("xarray", "rtsx.open_cube"),
            ("ModelBundle", "rtsx.ModelBundle.open"),
            ("GeoDataFrame", "geopandas.read_parquet, geopandas.read_file or rtsx.read_labels"),
            ("CampaignRecipe", "rtsx.load_campaign"),
            ("TrainingRecipe", "rtsx.config.load_training_recipe"),
        ):
            if kind in wanted:
                return f"Open it with {opener}({path!r})."
    module = sys.modules.get("torch")
    if "ModelBundle" in wanted and module is not None and isinstance(value, module.nn.Module):
        return "Make it one with rtsx.ModelBundle.from_module(module, layers=[...], ...)."
    if "Dataset" in wanted and type(value).__name__ == "DataArray":
        return "Make it one with array.to_dataset(name='...')."
    public = name.partition(".")[0] in sys.modules["rtsx"].__all__
    return f"See help({'rtsx.' if public else ''}{name})."
