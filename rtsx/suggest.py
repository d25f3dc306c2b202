"""What somebody may have meant by a name that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the known name nearest to an unknown one, else one that lists all; begins with a space.

    Examples
    --------
    >>> suggest("horizontalflip", ["HorizontalFlip", "Blur"])
    " Did you mean 'HorizontalFlip'? Known are Blur, HorizontalFlip."
    """
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    hint = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
    return f"{hint} Known are {', '.join(sorted(by_lower.values()))}." if by_lower else " It takes none."
