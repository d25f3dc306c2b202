"""Amounts of memory as people write them."""

from typing import Annotated

from dask.utils import parse_bytes
from pydantic import AfterValidator

__all__ = ["Memory", "memory_bytes"]


def memory_bytes(given: int | str) -> int:
    """Bytes of a number with a unit.

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> memory_bytes("8GB"), memory_bytes("2 GiB"), memory_bytes(1000)
    (8000000000, 2147483648, 1000)
    """
    try:
        counted = int(parse_bytes(given))
    except (ValueError, TypeError) as error:
        raise ValueError(f"memory is a number with a unit, such as 8GB or 8GiB; got {given!r}") from error
    if counted < 1:
        raise ValueError(f"memory is above 0; got {given!r}")
    return counted


Memory = Annotated[int | str, AfterValidator(memory_bytes)]
"""Bytes, as a number or with a unit such as 8GB."""
