import io

import pytest
from rich.console import Console

from rtsx.cli import console as module
from rtsx.cli.console import counting
from rtsx.progress import Line


@pytest.mark.parametrize("is_terminal", [True, False])
def test_shows_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch: pytest.MonkeyPatch, is_terminal: bool) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=is_terminal)
    monkeypatch.setattr(module, "status_console", lambda: console)
    with counting("reading", unit="tiles") as show:
        show(2, 3, ", slowly")
        line = getattr(show, "__self__", None)
        assert isinstance(line, Line) != is_terminal
        if line is not None:
            assert str(line).startswith("reading: 2 of 3 tiles, slowly")
    assert ("reading, slowly" in screen.getvalue()) == is_terminal
