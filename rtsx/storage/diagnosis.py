"""Why a file or an address cannot be opened or written: its innermost reason, and what else it is."""

import json
import os
import re
import shlex
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from rtsx.errors import OutputNotWritableError, RtsxError
from rtsx.storage.paths import file_name, is_url
from rtsx.storage.retry import NO_BUCKET, classify_error, is_denied, service_code

RASTER_SUFFIXES = frozenset(
    {".tif", ".tiff", ".vrt", ".jp2", ".img", ".cog", ".nc", ".dt0", ".dt1", ".dt2", ".hgt"}
    | {".nc4", ".h5", ".hdf5", ".hdf", ".grib", ".grb", ".grib2", ".grb2", ".asc", ".bil", ".ntf", ".png", ".jpg"}
)
"""Endings of files that GDAL reads."""

_SHOWN = 4
"""Files that a message names."""

_CURES = (
    (
        r"code ?: ?(404|410)\b|AWSObjectNotFound|AWSBucketNotFound|NoSuch(Key|Bucket)|BlobNotFound|specified key does not exist",
        "The server has no such file. Check the address; where a catalog named it, find the images again.",
    ),
    (r"code ?: ?(5\d\d|429)\b|SlowDown", "The server failed, or asks for patience. Try again later."),
    (r"Range downloading", "It gives no parts of files, which GDAL needs. Download the file, and open it here."),
    (r"resolve (host|proxy)", "There is no such host. Check its spelling, the network, and HTTPS_PROXY."),
    (
        r"TLS|SSL|certificate",
        (
            "The secure connection failed. Check that the server speaks https, and this machine's clock; CURL_CA_BUNDLE names a "
            "file of further certificates."
        ),
    ),
    (
        r"timed? ?out|too slow",
        (
            "The server did not answer in time. Try again; GDAL_HTTP_CONNECTTIMEOUT and GDAL_HTTP_LOW_SPEED_TIME in the environment "
            "allow more seconds."
        ),
    ),
    (r"onnect to|onnection refused", "Nothing answers there. Check host and port, and that the server runs."),
    (
        r"Empty reply|reset|Recv failure|transfer closed|HTTP/2|Failure when receiving",
        "The connection broke off. Try again.",
    ),
    (r"Too many open files", "Raise the limit with: ulimit -n 4096"),
    (r"Permission denied", "This user may not read it. Ask its owner for access, or change its mode with chmod."),
    (
        r"codec|not compiled|not been built|[Cc]ompression .*not|driver .*not available",
        "The GDAL of rasterio cannot decode it. Write it anew with another compression: gdal_translate -co COMPRESS=DEFLATE",
    ),
    (
        (
            r"got \d+ bytes, expected|Read error|IO error|not all elements have been closed|[Ee]nd of file|EOF|[Tt]runcat|Unterminated"
            r"|magic bytes not found"
        ),
        "It is truncated: the copy or download was broken off. Fetch it again.",
    ),
    (
        r"[Dd]ecod|[Cc]orrupt|hecksum|CRC|nflate|LZW|LERC|ZSTD|[Ii]nvalid|arse error|malformed|uncompress",
        "It is damaged. Fetch it again.",
    ),
)
"""What GDAL says at the bottom of its errors, and what to do; the first that fits counts."""

_NAMES = re.compile(
    r"^[`']?(?P<file>[^`':]+?)[`']?(: No such file| not recognized| does not exist|: Permission|, band \d+: )"
)
"""Where GDAL's words begin with the file that they are about, such as a source of a VRT."""
_ARCHIVE = re.compile(r"(?:/vsi(?:zip|tar)/\{?|(?:zip|tar)(?:\+file)?://)(.+)", re.DOTALL)
_NO_RASTER = re.compile(r"not recognized as being in a supported file format")


def is_raster(path: str) -> bool:
    """Test whether a file has pixels instead of outlines, by its ending.

    Examples
    --------
    >>> is_raster("truth.tif"), is_raster("truth.gpkg")
    (True, False)
    """
    return Path(file_name(path)).suffix.lower() in {*RASTER_SUFFIXES, ".zarr"}


def gdal_problem(path: str, error: BaseException, *, otherwise: str | None = None) -> str:
    """Return the innermost reason why GDAL could not read a path, in sentences that end with what to do.

    Parameters
    ----------
    path
        Path or URL, as GDAL was given it.
    error
        rasterio's or pyogrio's error, with its causes.
    otherwise
        What to do where the reason is none that is known; None: what is right for rasters.
    """
    reasons = [str(one) for one in causes(error)]
    reason = reasons[-1].rstrip(".")
    archive = _ARCHIVE.fullmatch(path)
    if archive is not None:
        return _in_archive(archive[1]) or f"{reason}. Check the archive with gdalinfo."
    is_remote = is_url(path) or path.startswith("/vsi")
    problem = None if is_remote else file_problem(path)
    if problem is not None:
        return problem
    named = next((match["file"] for match in map(_NAMES.match, reversed(reasons)) if match), None)
    where = ""
    if named is not None and PurePosixPath(named).name not in path:
        part = Path(path).parent / named  # an absolute name stays
        where = f"it refers to {part if not is_remote else named}. "
        problem = None if "://" in named or named.startswith("/vsi") else file_problem(part)
        if problem is not None:
            return where + problem
    kind = type(list(causes(error))[-1]).__name__
    cure = next((cure for pattern, cure in _CURES if re.search(pattern, f"{kind}: {reason}")), None)
    if cure is None and (_NO_RASTER.search(reason) or (not is_remote and path.endswith(".json"))):
        what = (
            "What the server sent is no raster, but perhaps a login page or an answer with an error. Open the address in a "
            "browser."
            if is_remote
            else otherwise or instead(path) or "Check it with gdalinfo."
        )
        return f"{where}{reason}. {what}"
    return f"{where}{reason}. {cure or otherwise or 'Check it with gdalinfo.'}"


@contextmanager
def write_failures(place: object, *, halting: bool = False) -> Iterator[None]:
    """Turn what fails of a write or delete into `OutputNotWritableError`; errors of ours pass.

    Parameters
    ----------
    place
        What is written, for the message.
    halting
        Only what would fail again and for every key, such as missing rights; the rest is raised as it is, to be tried again.
    """
    try:
        yield
    except RtsxError:
        raise
    except Exception as error:
        if halting and not isinstance(error, FileNotFoundError) and classify_error(error) != "halting":
            raise
        raise OutputNotWritableError(f"{place} cannot be written: {error}. {_write_cure(error)}") from error


def _write_cure(error: Exception) -> str:
    if service_code(error) in NO_BUCKET or isinstance(error, FileNotFoundError):
        return "There is no such bucket or container: create it, or correct the address."
    if is_denied(error):
        return "Check the credentials, and their rights to write and to delete there; or choose a place that you may write to."
    if classify_error(error) == "passing":
        return "Check the address and the network, and try again."
    return "Free space where it is full; else choose a place that you may write to."


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all behind it, the innermost last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def georeferencing(path: str, *, has_crs: bool, control: str | None, crs: str | None, has_nodata: bool) -> str:
    """Return how to give a raster its place on Earth, as a command.

    Parameters
    ----------
    path
        Of the raster.
    has_crs
        Whether it has a CRS, so that only the transform is missing.
    control
        What gdalwarp can place it by: ``"gcps"``, ``"rpc"`` or ``"geoloc"``; None where there is nothing of the kind.
    crs
        A CRS for the result, as GDAL takes it; None where nothing tells one.
    has_nodata
        Whether missing pixels have a value.
    """
    file = re.sub(r'^\w{3,}:(?!//)(\d+:)?"?|".*', "", path)  # of a name such as NETCDF:"a.nc":red
    quoted, out = shlex.quote(path), shlex.quote(str(PurePosixPath(file).with_suffix("")) + "_warped.tif")
    if control is not None:
        what = {"gcps": "ground control points", "rpc": "RPCs", "geoloc": "arrays of coordinates"}[control]
        options = {"gcps": "", "rpc": "-rpc ", "geoloc": "-geoloc "}[control]
        # Ground beside the turned image would be data with the value 0.
        options += f"-t_srs {crs or 'EPSG:...'} {'' if has_nodata else '-dstalpha '}"
        relief = " (with -to RPC_DEM=dem.tif where the ground is not flat)" if control == "rpc" else ""
        return f"It is placed by {what}. Warp it onto a grid: gdalwarp {options}{quoted} {out}{relief}"
    if has_crs:
        return f"Give it its corners: gdal_translate -a_ullr LEFT TOP RIGHT BOTTOM {quoted} {out}"
    return (
        f"Georeference it, where it has a transform with gdal_edit.py -a_srs EPSG:... {quoted}, else with gdal_translate "
        f"-a_srs EPSG:... -a_ullr LEFT TOP RIGHT BOTTOM {quoted} {out}"
    )


def instead(path: str) -> str | None:
    """Return what a local file or folder is that is neither a raster nor a store, and what to give in its place; None: unknown."""
    local = Path(path)
    if local.is_dir():
        return _in_folder(local)
    start = file_start(local)
    kind = "zip" if zipfile.is_zipfile(local) else "tar" if tarfile.is_tarfile(local) else None
    names = [] if kind is None else _names_in(local)
    if names:
        if rasters := [name for name in names if PurePosixPath(name).suffix.lower() in RASTER_SUFFIXES]:
            inside = _listed(f"/vsi{kind}/{local}/{name}" for name in rasters)
            return f"It is a {kind} archive. Name the rasters in it: {inside}"
        return f"It is a {kind} archive without a raster or a Zarr store; it has {_listed(names)}"
    if start.startswith(b"\x1f\x8b"):
        return f"It is packed with gzip. Unpack it with: gunzip -k {shlex.quote(path)}"
    if start.startswith((b"SQLite format 3", b"PAR1")) or local.suffix.lower() in (".shp", ".fgb"):
        return "It is a table, of outlines perhaps, and no raster. Outlines are labels, regions or footprints."
    if start.lstrip()[:1] == b"{":
        return _of_json(local)
    return None


def _names_in(archive: Path) -> list[str]:
    """Return names of files in an archive, the first of many; those of a tar that is damaged further on too."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            return [name for name in opened.namelist() if not name.endswith("/")]
    names: list[str] = []
    with suppress(tarfile.TarError, EOFError, OSError), tarfile.open(archive) as packed:
        for member in packed:  # instead of all, because a compressed one is read up to where they stand
            names += [member.name] if member.isfile() else []
            if len(names) == _MOST_NAMES:
                break
    return names


_MOST_NAMES = 100
"""Files of an archive that are looked at."""


def _in_archive(inside: str) -> str | None:
    """Return what is wrong with a file in an archive."""
    whole = Path(inside.replace("!", "/").replace("}", "/"))
    archive = next((one for one in (whole, *whole.parents) if one.is_file()), None)
    if archive is None:
        missing = next((one for one in (*reversed(whole.parents), whole) if not one.exists()), whole)
        return f"{missing}: {file_problem(missing)}"
    problem = file_problem(archive)
    if problem is not None or not (zipfile.is_zipfile(archive) or tarfile.is_tarfile(archive)):
        return None if problem is None else f"{archive}: {problem}"
    names = _names_in(archive)
    wanted = whole.relative_to(archive).as_posix()
    is_known = wanted in names or len(names) == _MOST_NAMES
    return None if is_known else f"There is no {wanted} in {archive}; there are {_listed(names)}"


def campaign_around(folder: Path) -> Path | None:
    """Return the output of a campaign that a folder is, or lies in; None for any other folder."""
    return next((one for one in (folder, *folder.absolute().parents[:3]) if (one / "campaign.json").is_file()), None)


def _in_folder(folder: Path) -> str:
    campaign = campaign_around(folder)
    if campaign is not None:
        return (
            f"It is {'' if campaign == folder else 'a part of '}the output of a campaign. Give its map, {campaign / 'map.zarr'}; rtsx campaign "
            f"collect {campaign} makes its outlines, which other commands take."
        )
    if found := sorted(path for path in folder.rglob("*") if path.suffix.lower() in RASTER_SUFFIXES):
        return f"It is a folder of {len(found)} rasters. Give those that are meant: {_listed(found)}"
    arrays = [path.parent for path in folder.glob("*/zarr.json") if _json(path).get("node_type") == "array"]
    arrays += [path.parent for path in folder.glob("*/.zarray")]
    if arrays:
        return f"It is a folder of Zarr arrays, without a zarr.json or .zgroup of its own: {_listed(sorted(arrays))}. Copy it again."
    if stores := sorted(path.parent for name in ("zarr.json", ".zgroup") for path in folder.glob(f"*/{name}")):
        return f"It is a folder of Zarr stores. Give one: {_listed(stores)}"
    if (folder / "refs").is_dir() and (folder / "snapshots").is_dir():
        return (
            "It is an Icechunk repository. Open a session of it with icechunk, and give predict_cube what "
            "xarray.open_zarr(session.store, consolidated=False) gives."
        )
    if documents := [path for path in sorted(folder.rglob("*.json")) if _is_stac(_json(path))]:
        return _recipe(folder, _json(documents[0]))
    return "it is a folder, but no Zarr store (no zarr.json or .zgroup in it), and holds no raster. Give the one that holds them."


def _of_json(path: Path) -> str:
    document = _json(path)
    if _is_stac(document):
        return _recipe(path, document)
    if document.get("type") in ("Feature", "FeatureCollection"):
        return "It is GeoJSON, a table of outlines, and no raster. Outlines are labels, regions or footprints."
    if "refs" in document or ".zgroup" in document:
        return (
            "It is a kerchunk index of a Zarr store in other files. In Python, rtsx.open_cube opens it as 'reference://', with the "
            f"storage_options {{'fo': {str(path)!r}}}."
        )
    return "It is JSON, and no raster."


def _json(path: Path) -> Mapping[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_stac(document: Mapping[str, Any]) -> bool:
    return "stac_version" in document or document.get("type") in ("Catalog", "Collection")


def _recipe(path: Path, document: Mapping[str, Any]) -> str:
    """Return the config that opens a STAC document, with what can be known from it."""
    properties = document.get("properties")
    said = properties if isinstance(properties, dict) else {}
    code = said.get("proj:code") or (f"EPSG:{said['proj:epsg']}" if said.get("proj:epsg") else "EPSG:3413")
    transform, box, assets = said.get("proj:transform"), document.get("bbox"), document.get("assets")
    size = transform[0] if isinstance(transform, list) and transform else 10
    bbox = [box[0], box[1], *box[-2:]] if isinstance(box, list) and len(box) == 4 else "[WEST, SOUTH, EAST, NORTH]"
    names = list(assets)[:_SHOWN] if isinstance(assets, dict) and assets else ["red", "green", "blue"]
    return (
        f"It is a STAC {'item' if document.get('type') == 'Feature' else 'catalog'}. Open it by a config, such as this in "
        f"cube.yaml:\ngrid: {{crs: '{code}', resolution: {size}}}\nregion: {{bbox: {bbox}}}\nsources:\n  images:\n"
        f"    catalog: {json.dumps(str(path))}\n    layers: {json.dumps(names)}"
    )


def _listed(names: Any) -> str:
    listed = [str(name) for name in names]
    rest = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(map(shlex.quote, listed[:_SHOWN])) + rest


_START = 512
"""Bytes that tell what a file is."""
_PAGE = re.compile(
    rb"^(\xef\xbb\xbf)?\s*<(!doctype html|html|head|body|\?xml[^>]*\?>\s*<(!doctype html|html|error))", re.IGNORECASE
)
_ERROR = re.compile(rb"^\s*\{\s*\"(code|detail|error|errors|message|status|title)\"\s*:")
"""An answer of a server that was saved instead of the file."""
_POINTER = b"version https://git-lfs.github.com/spec/"


def file_problem(path: str | os.PathLike[str]) -> str | None:
    """Return why no reader could read a local file, and what to do, in sentences; None where nothing of the kind is wrong.

    Parameters
    ----------
    path
        Of a file on this machine.

    Examples
    --------
    >>> file_problem("no-such-folder/a.tif")
    'There is no such file: the folder no-such-folder does not exist. Check the path.'
    """
    file = Path(path)
    try:
        if not file.exists():
            return _missing(file)
        if file.is_dir():
            return "It is a folder. Give the file."
        if not file.is_file():
            return None  # a pipe, which can be read once
        start = file_start(file)
    except PermissionError:
        return "This user may not read it. Ask its owner for access, or change its mode with chmod."
    except OSError as error:
        return f"It cannot be read: {error.strerror or error}. Check the path and the disk."
    return start_problem(start)


def start_problem(start: bytes) -> str | None:
    """Return `file_problem` of what is in memory: a file, or its first bytes.

    Examples
    --------
    >>> start_problem(b"version https://git-lfs.github.com/spec/v1")
    'It is a pointer of Git LFS, without the file itself. Fetch that with: git lfs pull'
    """
    if not start:
        return "It is empty: the copy or download ended at once. Fetch it again."
    if _PAGE.match(start) or _ERROR.match(start):
        return (
            "It holds a web page or an answer of a server, saved in place of the file: a login, a licence or an error. Read it as "
            "text, and fetch the file again with what the page asks for."
        )
    if start.startswith(_POINTER):
        return "It is a pointer of Git LFS, without the file itself. Fetch that with: git lfs pull"
    if not start[:_START].strip(b"\0"):
        return "It begins with zeros only: the copy or download was broken off. Fetch it again."
    return None


def file_start(path: str | os.PathLike[str]) -> bytes:
    """Return first bytes of a local file; raises `OSError` where it cannot be read."""
    with Path(path).open("rb") as file:
        return file.read(_START)


def _missing(file: Path) -> str:
    if file.is_symlink():
        return f"It is a link to {Path(file).readlink()}, and there is nothing. Make the link again."
    if not file.parent.exists():
        return f"There is no such file: the folder {file.parent} does not exist. Check the path."
    near = get_close_matches(file.name, (one.name for one in file.parent.iterdir()), n=1, cutoff=0.8)
    hint = f" Did you mean {file.with_name(near[0])}?" if near else ""
    return f"There is no such file.{hint} Check the path."
