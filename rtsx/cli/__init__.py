"""The command line: names for public functions. A command reads its arguments, calls them and prints a summary."""

from rtsx.cli.app import main

__all__ = ["main"]
