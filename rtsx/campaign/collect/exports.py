"""Files that hold all footprints at once, made again when any partition changed."""

from collections.abc import Sequence
from hashlib import sha256

from rtsx.campaign.collect.footprints import FOOTPRINTS
from rtsx.campaign.collect.pyogrio import FORMATS, VectorFormat, format_named, one_file
from rtsx.campaign.collect.records import Records
from rtsx.campaign.collect.states import digest_of
from rtsx.campaign.collect.tables import PartTable, Refreshed
from rtsx.campaign.layout import YearLayout

__all__ = ["collect_files", "export_key", "formats_named"]


def formats_named(names: Sequence[str]) -> tuple[VectorFormat, ...]:
    """The formats of these names, each once, in the order of `FORMATS`.

    Raises
    ------
    CampaignError, MissingExtraError
        One is unknown, or cannot be written here.
    """
    wanted = {format_named(name).driver for name in names}
    return tuple(one for one in FORMATS.values() if one.driver in wanted)


def export_key(layout: YearLayout, form: VectorFormat) -> str:
    """Key of the file."""
    return f"{layout.products}/{FOOTPRINTS}{form.suffix}"


def collect_files(
    footprints: PartTable, refreshed: Refreshed, forms: Sequence[VectorFormat], *, layout: YearLayout, crs: str
) -> tuple[dict[str, str], list[str]]:
    """Bring these files up to date; their SHA-256 by key, and the keys of those that were written.

    Files that were asked for earlier are brought up to date as well, because they would tell of another state otherwise.
    """
    records = Records(footprints.objects, f"{layout.products}/collected/files")
    before = records.read()
    there = {found.key for found in footprints.objects.list(layout.products)} if forms or before else set()
    source = digest_of(refreshed.digest)
    digests, written = {}, []
    for form in (one for one in FORMATS.values() if one in forms or one.suffix[1:] in before):
        name, key = form.suffix[1:], export_key(layout, form)
        record = before.get(name)
        if record is None or record["from"] != source or key not in there:
            content = one_file(footprints.walk(refreshed.records), form, crs=crs)
            record = {"from": source, "sha256": sha256(content).hexdigest()}
            # Not taken back, because the format would be forgotten if this call were stopped, and the file not follow any more.
            records.put(name, {"from": "?", "sha256": ""})
            footprints.objects.put(key, content)
            records.put(name, record)
            written.append(key)
        digests[key] = record["sha256"]
    return digests, written
