"""Texts without secrets: what is shown, logged or stored goes through here."""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote

_TELLING = re.compile(
    r"key|token|secret|passw|passphrase|signature|credential|bearer|cookie|session|auth|headers?$|storage_options|"
    r"(?<![a-z])(?:tok|pass|pwd|pw|sig|sas|jwt|pat|pin|code)(?![a-z])",
    re.IGNORECASE,
)
"""Names of what is nobody else's business."""
_REFERENCE = r"\$\{[A-Za-z_]\w*\}"
_USER = re.compile(
    r"(?<=://)(?P<user>[^\s/?#@'\"]*:(?:[^\s/?#]*|(?!\d+/)[^\s?#@]*)|(?:(?<=http://)|(?<=https://))[^\s/?#'\"]+)@"
)
"""User and password of an address; with another scheme, as in ``abfs://container@account``, a name alone is none."""
_QUERY = re.compile(
    r"(?P<start>[?&#;](?P<name>[\w.~%\[\]-]+)=)(?P<value>\$\{\w+\}|[^\s&#;'\"<>\\]*?)(?=[).,:\]}]*(?:[\s&#;'\"<>\\]|$))"
)
_PLAIN = re.compile(r"[A-Za-z]{0,12}|[\d.,:+TZ-]{0,24}")
"""Values of queries that are too plain for a secret: a short word, a number, a date."""
_BEARER = re.compile(r"\b(?P<kind>Bearer|Basic)\s+(?=\S*[\d=])[\w+/=.~-]{6,}")
_ENTRY = re.compile(
    r"(?P<start>(['\"])(?P<name>[\w-]+)\2\s*:\s*(?P<quote>['\"]))(?P<value>(?:\\.|(?!(?P=quote)).)+)(?P=quote)"
)
"""An entry of a dictionary that is printed."""
_withheld: dict[str, tuple[re.Pattern[str], str]] = {}
"""Secrets that this process has read from variables, with a pattern and with what stands in a config instead."""


def withhold(value: str, reference: str) -> None:
    """Replace a secret by its reference in all that `redacted` sees from now on.

    Parameters
    ----------
    value
        The secret.
    reference
        What stands in the config instead, such as ``${TOKEN}``.
    """
    if len(value) < 4:
        return  # found everywhere by accident
    for one in {value, value.replace("$", "$$"), quote(value), quote(value, safe="")}:
        letters = r"(?<![A-Za-z0-9]){}(?![A-Za-z0-9])" if len(value) < 8 else "{}"
        _withheld[one] = re.compile(letters.format(re.escape(one))), reference


def is_secret_name(name: str) -> bool:
    """Test whether a name of a variable, a key or a parameter says that its value is a secret.

    Examples
    --------
    >>> is_secret_name("PL_API_KEY"), is_secret_name("sig"), is_secret_name("BUCKET")
    (True, True, False)
    """
    return _TELLING.search(name) is not None


def redacted(text: str, *, keeps_references: bool = False) -> str:
    """Return a text without secrets, to be shown, logged or stored.

    Without users and passwords of addresses, without values of queries that are, or could be, secrets, and with the reference
    instead of each value that was withheld.

    Parameters
    ----------
    text
        Any.
    keeps_references
        Whether a ``${NAME}`` also stands within passwords and queries, as in a config that is read again.

    Examples
    --------
    >>> redacted("https://me:hunter2@example.org/red.tif?sig=a%2Fb&page=2 answers 403.")
    'https://***@example.org/red.tif?sig=***&page=2 answers 403.'
    """
    if keeps_references:
        return _without_places(_without_values(text), keeps_references=True)
    return _without_values(_without_places(text, keeps_references=False))


def has_secret(text: str) -> bool:
    """Test whether a text surely holds a secret: one that was withheld, a user of an address, a bearer, or a parameter that is named so.

    Values that only look like secrets are none here, such as the name of an item.

    Examples
    --------
    >>> has_secret("https://example.org/red.tif?sig=a%2Fb"), has_secret("https://example.org/tiles?item=S2B_T08WNB_2024")
    (True, False)
    """
    named = (match for match in _QUERY.finditer(text) if is_secret_name(match["name"]))
    return (
        _without_values(text) != text
        or _USER.search(text) is not None
        or _BEARER.search(text) is not None
        or any(match["value"] and not match["value"].startswith("***") for match in named)
    )


def redacted_values(values: Any) -> Any:
    """Return mappings and lists with every text in them `redacted`.

    Examples
    --------
    >>> redacted_values({"files": ["s3://key:secret@bucket/a.tif"], "tile": 64})
    {'files': ['s3://***@bucket/a.tif'], 'tile': 64}
    """
    if isinstance(values, str):
        return redacted(values)
    if isinstance(values, Mapping):
        return {key: redacted_values(value) for key, value in values.items()}
    return [redacted_values(value) for value in values] if isinstance(values, list | tuple) else values


def _without_values(text: str) -> str:
    for value in sorted(_withheld, key=len, reverse=True):
        if value in text:
            pattern, reference = _withheld[value]
            text = pattern.sub(reference.replace("\\", r"\\"), text)
    return text


def _without_places(text: str, *, keeps_references: bool) -> str:
    def user(match: re.Match[str]) -> str:
        secret = match["user"].rpartition(":")[2]
        return match[0] if keeps_references and re.fullmatch(_REFERENCE, secret) else "***@"

    def value(match: re.Match[str]) -> str:
        name, secret = match["name"], match["value"]
        if not secret or secret.startswith("***") or (keeps_references and re.fullmatch(_REFERENCE, secret)):
            return match[0]
        if is_secret_name(name):
            return f"{match['start']}***"
        # Distinguished by a digest, because it may say which image is meant.
        digest = sha256(secret.encode()).hexdigest()[:8]
        return match[0] if _PLAIN.fullmatch(secret) else f"{match['start']}***{digest}"

    if "://" in text:
        text = _USER.sub(user, text)
    if "=" in text:
        text = _QUERY.sub(value, text)
    text = _BEARER.sub(r"\g<kind> ***", text)
    return _ENTRY.sub(
        lambda match: f"{match['start']}***{match['quote']}" if is_secret_name(match["name"]) else match[0], text
    )
