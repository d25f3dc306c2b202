"""Suggest what somebody may have meant by a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question for the known name nearest to an unknown one, with a space before it; empty where none is near.

    Examples
    --------
    >>> did_you_mean("horizontalflip", ["HorizontalFlip", "Blur"])
    " Did you mean 'HorizontalFlip'?"
    """
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `did_you_mean`, and a sentence that lists all known names.

    Examples
    --------
    >>> suggest("horizontalflip", ["HorizontalFlip", "Blur"])
    " Did you mean 'HorizontalFlip'? Known are Blur, HorizontalFlip."
    """
    names = sorted(known)
    return f"{did_you_mean(name, names)} Known are {', '.join(names)}." if names else " It takes none."
