"""Compiling where nothing can be kept."""

import importlib
from pathlib import Path
from typing import Any

import numba
import pytest

from rtsx.cube.erosion import compiled


def test_a_kernel_compiles_where_no_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def read_only(*kernel: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*kernel, **options)

    monkeypatch.setattr(numba, "njit", read_only)
    assert compiled(lambda a, b: a / b)(1.0, 0.0) == float("inf")


def test_a_kernel_that_changed_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Because the decorator stands in another file than most kernels do.
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "changing.py").write_text(KERNEL.format(term="a + 1"))
    import changing  # type: ignore[import-not-found]

    assert changing.kernel(2.0) == 3
    again = importlib.reload(changing)
    assert again.kernel(2.0) == 3
    assert sum(again.kernel.stats.cache_hits.values()) == 1
    (tmp_path / "changing.py").write_text(KERNEL.format(term="a * 50"))
    again = importlib.reload(changing)
    assert again.kernel(2.0) == 100
    assert not again.kernel.stats.cache_hits


KERNEL = """
from rtsx.cube.erosion import compiled


def _kernel(a):
    return {term}


kernel = compiled(_kernel)
"""
