"""What a campaign pays for machines and storage, where its operator knows."""

from dataclasses import dataclass

__all__ = ["Prices"]


@dataclass(frozen=True, kw_only=True)
class Prices:
    """Prices in one currency; None leaves a part out of the sum."""

    device_hour: float | None = None
    """Of one worker, with its GPU where it has one, for an hour."""
    gigabyte_month: float | None = None
    """Of storing 10^9 bytes for a month."""
    gigabyte_read: float | None = None
    """Of reading 10^9 bytes from the sources."""
    currency: str = "EUR"
    """Name of the currency, for reports."""
