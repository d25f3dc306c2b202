"""Compiling where nothing can be kept."""

from typing import Any

import numba
import pytest

from rtsx.cube.numba import compiled


def test_a_kernel_compiles_where_no_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def read_only(*kernel: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*kernel, **options)

    monkeypatch.setattr(numba, "njit", read_only)
    assert compiled(lambda a, b: a / b)(1.0, 0.0) == float("inf")
