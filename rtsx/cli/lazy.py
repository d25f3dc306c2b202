"""A group of commands of which only the one that is called is loaded, so that help and errors come at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["Entry", "LazyGroup", "lazy_group"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line in the list of commands, and where the command is."""

    module: str
    """Module whose `app` it is."""
    help: str
    """What the list says of it: the first sentence of the command's own help."""
    is_group: bool = False
    """Whether it has commands of its own."""


class LazyGroup(TyperGroup):
    """Lists commands by what is said of them, and loads one when it is called."""

    entries: Mapping[str, Entry] = {}
    """The commands by name, in the order of the list."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=entry.help) for name, entry in self.entries.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that a line names; the one moment at which it has to be there."""
        name, listed, rest = super().resolve_command(ctx, args)
        return name, None if listed is None else self.load(str(name)), rest

    def load(self, name: str) -> Any:
        """Import a command."""
        entry = self.entries[name]
        # Within another app, because a command on its own would offer to install completion.
        around = typer.Typer(add_completion=False)
        around.add_typer(import_module(entry.module).app, name=name if entry.is_group else None)
        return typer.main.get_group(around).commands[name]


def lazy_group(entries: Mapping[str, Entry]) -> type[LazyGroup]:
    """The class of a group of these commands, as `typer.Typer(cls=...)` takes it."""
    return type("Commands", (LazyGroup,), {"entries": dict(entries)})
