"""What an operator may change without changing a byte: prices. Kept by year beside the plans, so that any machine can reckon."""

import json
from dataclasses import asdict

from rtsx.campaign.objects import ObjectStore
from rtsx.campaign.prices import Prices
from rtsx.errors import CampaignError
from rtsx.parsing import parsed_json

__all__ = ["planned_years", "read_prices", "write_prices"]

_FOLDER = "settings"
"""Apart from the years' own folders, because one short listing of it tells which years there are."""


def write_prices(objects: ObjectStore, prices: Prices, *, year: int) -> None:
    """Keep the prices of a year, in place of those that were there."""
    objects.put(_key(year), json.dumps({"prices": asdict(prices)}, sort_keys=True).encode())


def read_prices(objects: ObjectStore, *, year: int) -> Prices:
    """Prices of a year; none where nobody has said.

    Raises
    ------
    CampaignError
        The file is not what `write_prices` writes.
    """
    content = objects.get(_key(year))
    if content is None:
        return Prices()
    return parsed_json(content, dict[str, Prices], what=_key(year), error=CampaignError).get("prices", Prices())


def planned_years(objects: ObjectStore) -> list[int]:
    """Years that were planned, in order."""
    names = (stored.key.rsplit("/", 1)[-1].removesuffix(".json") for stored in objects.list(_FOLDER))
    return sorted(int(name) for name in names if name.isdecimal())


def _key(year: int) -> str:
    return f"{_FOLDER}/{year}.json"
