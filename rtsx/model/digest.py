"""Digests: two networks with the same digest give the same answers."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def digest_of_bytes(data: bytes) -> str:
    """Return the sha256 of a file's content, as hex.

    Examples
    --------
    >>> digest_of_bytes(b"")[:12]
    'e3b0c44298fc'
    """
    return hashlib.sha256(data).hexdigest()


def digest_of_json(value: object) -> str:
    """Return the sha256 of a JSON value, whatever the order of its keys.

    Examples
    --------
    >>> digest_of_json({"a": 1, "b": (2.5,)}) == digest_of_json({"b": [2.5], "a": 1})
    True
    """
    return digest_of_bytes(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())


def digest_of_tensors(tensors: "Mapping[str, torch.Tensor]", *, header: str) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of tensors, whatever container they came in, and over `header`."""
    import torch  # heavy; kept out of `import rtsx`

    digest = hashlib.sha256(header.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(value: object) -> str:
    """Return the text that stands for a value in a digest, equal in every process that runs the same Python.

    Functions stand for their byte code, constants, defaults and the values they close over, objects for their class
    and attributes, arrays for their bytes. What a function calls by global name is represented by that name only.

    Examples
    --------
    >>> fingerprint({"rate": 0.5, "names": ("a", "b")})
    "{'rate':0.5,'names':['a','b']}"
    >>> def scaled(by):
    ...     return lambda x: x * by
    >>> fingerprint(scaled(2)) == fingerprint(scaled(3))
    False
    """
    return _text(value, above=())


def _text(value: object, *, above: tuple[int, ...]) -> str:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return repr(value)
    if id(value) in above:
        return "..."  # a value that holds itself, such as a recursive function
    inside = (*above, id(value))
    if isinstance(value, (tuple, list)):
        return f"[{','.join(_text(item, above=inside) for item in value)}]"
    if isinstance(value, (set, frozenset)):
        return f"{{{','.join(sorted(_text(item, above=inside) for item in value))}}}"
    if isinstance(value, dict):
        return f"{{{','.join(f'{_text(k, above=inside)}:{_text(v, above=inside)}' for k, v in value.items())}}}"
    if isinstance(value, (FunctionType, MethodType, partial)):
        return _function_text(value, inside=inside)
    if isinstance(value, (type, ModuleType)):
        return value.__name__
    if hasattr(value, "__array__") and hasattr(value, "shape"):
        array = np.asarray(value)
        return f"{array.dtype}{array.shape}{digest_of_bytes(np.ascontiguousarray(array).tobytes())}"
    return f"{type(value).__qualname__}{_text(getattr(value, '__dict__', None), above=inside)}"


def _function_text(value: "FunctionType | MethodType | partial[object]", *, inside: tuple[int, ...]) -> str:
    if isinstance(value, partial):
        return f"partial{_text([value.func, value.args, value.keywords], above=inside)}"
    if isinstance(value, MethodType):
        return f"method{_text([value.__func__, value.__self__], above=inside)}"
    cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
    return f"{_code_text(value.__code__)}{_text([value.__defaults__, value.__kwdefaults__, cells], above=inside)}"


def _code_text(code: CodeType) -> str:
    constants = [
        _code_text(value) if isinstance(value, CodeType) else _text(value, above=()) for value in code.co_consts
    ]
    return f"{code.co_name}{code.co_code.hex()}{code.co_names}{constants}"
