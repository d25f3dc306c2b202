"""The list of commands: it says what the commands say, and loads none of them."""

import subprocess
import sys
from typing import Any

import pytest
from click import Context, UsageError
from typer.core import TyperOption
from typer.main import get_command

from rtsx.cli.app import COMMANDS, app


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_says_what_the_command_says(name: str) -> None:
    loaded = get_command(app).load(name)
    said = " ".join(loaded.help.split("\n\n")[0].split())
    assert COMMANDS[name].help == said
    assert hasattr(loaded, "commands") == COMMANDS[name].is_group


def test_help_loads_nothing_that_commands_need() -> None:
    code = (
        "import sys\n"
        "from rtsx.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('xarray', 'torch', 'pandas', 'numpy', 'rasterio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_misspelt_command_is_guessed(rtsx_command) -> None:
    outcome = rtsx_command("predct")
    assert outcome.status == 2
    assert "Did you mean 'predict'?" in outcome.err


def test_no_option_that_takes_one_value_is_given_twice() -> None:
    """Every such option of every command, because click would keep the last of two without a word."""
    seen = 0

    def walk(command: Any, name: str) -> None:
        nonlocal seen
        for child, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {child}")
        for option in command.params:
            if isinstance(option, TyperOption) and not (option.multiple or option.count or option.is_flag):
                one = [option.opts[-1], *["1"] * option.nargs]
                with pytest.raises(UsageError, match="takes one value and was given 2 times"):
                    command.parse_args(Context(command, info_name=name), [*one, *one])
                seen += 1

    group = get_command(app)
    for name in COMMANDS:
        walk(group.load(name), name)  # type: ignore[attr-defined]
    assert seen > 50
