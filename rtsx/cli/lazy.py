"""A group of commands of which only the one that is called is loaded, so that help and errors come at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from click import UsageError
from typer.core import TyperCommand, TyperGroup, TyperOption

__all__ = ["Entry", "LazyGroup", "lazy_group"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line in the list of commands, and where the command is."""

    module: str
    """Module whose `app` it is."""
    help: str
    """What the list says of it: the first sentence of the command's own help."""
    stopped: str | Mapping[str, str]
    """What is true after Ctrl-C, of the command or of each of its own commands."""

    @property
    def is_group(self) -> bool:
        """Whether it has commands of its own."""
        return not isinstance(self.stopped, str)


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
        return _once(typer.main.get_group(around).commands[name])


def _once(command: Any) -> Any:
    """The command, which refuses an option that takes one value and is given twice; click keeps the last without a word."""
    for child in getattr(command, "commands", {}).values():
        _once(child)
    parse = command.parse_args

    def parse_args(ctx: Any, args: list[str]) -> Any:
        if not ctx.resilient_parsing:
            _, _, given = command.make_parser(ctx).parse_args(args=list(args))
            for option in given:
                takes_one = isinstance(option, TyperOption) and not (option.multiple or option.count)
                if takes_one and given.count(option) > 1 and (not option.is_flag or option.secondary_opts):
                    raise UsageError(
                        f"{option.opts[-1]} takes one value and was given {given.count(option)} times. Give it once.",
                        ctx,
                    )
        return parse(ctx, args)

    command.parse_args = parse_args
    return command


def lazy_group(entries: Mapping[str, Entry]) -> type[LazyGroup]:
    """The class of a group of these commands, as `typer.Typer(cls=...)` takes it."""
    return type("Commands", (LazyGroup,), {"entries": dict(entries)})
