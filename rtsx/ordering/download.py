"""Files from anywhere to a folder: complete, checked, and under their names only then."""

import errno
import shutil
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from rtsx.cube.rasterio import require_raster
from rtsx.errors import CubeError, OrderError
from rtsx.ordering.catalog import is_raster
from rtsx.ordering.http import MOST_ATTEMPTS, HttpError, Patience, Stream, open_http, pauses_until
from rtsx.ordering.provider import RemoteFile, checksum_of
from rtsx.storage import file_system, replace_settled

Advance = Callable[[RemoteFile, int], None]
"""Told of every piece of a file that has arrived, in bytes; from several threads."""

_CHUNK_BYTES = 1 << 20
_LARGEST_UNSTATED_BYTES = 20_000_000_000
"""Bytes of a file of which neither the item nor the server says how large it is; scenes of satellites have a few GB."""


def fetch_files(
    files: Iterable[RemoteFile],
    folder: Path,
    *,
    parallel: int = 4,
    advance: Advance = lambda file, count: None,
    pause: Callable[[float], None] | None = None,
) -> dict[str, OrderError]:
    """Fetch files into ``folder/<scene id>/<name>``, several at a time; what is there already is kept.

    Returns
    -------
    dict
        What went wrong, by ``<scene id>/<name>``; all other files are there, complete.
    """
    failures: dict[str, OrderError] = {}
    over = Event()
    pause = pause or pauses_until(over)
    with ThreadPoolExecutor(parallel) as pool:
        waiting = {
            pool.submit(fetch_file, file, folder / file.scene_id / file.name, advance=advance, pause=pause): file
            for file in files
        }
        try:
            for done in as_completed(waiting):
                file, error = waiting[done], done.exception()
                if isinstance(error, OrderError):
                    failures[f"{file.scene_id}/{file.name}"] = error
                elif error is not None:
                    raise error
        except BaseException:
            over.set()
            pool.shutdown(wait=False, cancel_futures=True)  # what runs ends with its file; the rest never starts
            raise
    return failures


def fetch_file(
    file: RemoteFile,
    target: Path,
    *,
    once: bool = False,
    advance: Advance = lambda file, count: None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Fetch one file; it has its name when it is complete and adds up, and a raster opens. What is there and does not is fetched anew.

    Until then it is a hidden file beside it, which a later call goes on from if the server still has the same content.
    Failures that may pass are tried five times, with growing pauses or as long as the server asks for, and so is what arrives damaged,
    unless it is to arrive `once`, as where it came damaged before.

    Raises
    ------
    OrderError
        It cannot be had, or is not what the provider says it is.
    """
    target = target.resolve()  # a link to another disk is followed, never replaced
    if target.exists() and not _wrong(file, target):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, version = (target.with_name(f".{target.name}.{ending}") for ending in ("partial", "version"))
    patience = Patience(pause)
    while True:
        try:
            arrived = _receive(file, draft, version, advance=advance)
            wrong = _wrong(arrived, draft)
        except (OSError, ImportError) as error:  # fsspec tells of a missing library so
            if patience.bears(error):
                continue
            raise OrderError(
                f"{file.name} of scene {file.scene_id} cannot be fetched: {error} (attempt {patience.attempts}). "
                "What has arrived is kept; run fetch again."
            ) from error
        if not wrong:
            replace_settled(draft, target)
            version.unlink(missing_ok=True)
            return
        draft.unlink(missing_ok=True)  # from the beginning, because a wrong beginning never adds up
        version.unlink(missing_ok=True)
        if once or not patience.is_left:
            raise OrderError(
                f"{file.name} of scene {file.scene_id} arrived {'again' if once else f'{MOST_ATTEMPTS} times'}, but {wrong}. The "
                "provider's file or its description is damaged; report it there."
            )


def _receive(file: RemoteFile, draft: Path, version: Path, *, advance: Advance) -> RemoteFile:
    """Bring the draft to its full length; returns the file with what the server says of it."""
    parts = urlsplit(file.href)
    if parts.scheme in ("http", "https"):
        return _receive_http(file, draft, version, advance=advance)
    if parts.scheme in ("", "file"):
        shutil.copyfile(url2pathname(parts.path) if parts.scheme else file.href, draft)
    else:
        system, path = file_system(file.href, {}, error=OrderError)
        with system.open(path, "rb") as source, draft.open("wb") as sink:
            _write(file, sink, iter(lambda: source.read(_CHUNK_BYTES), b""), size=None, advance=advance)
        return file
    advance(file, draft.stat().st_size)
    return file


def _receive_http(file: RemoteFile, draft: Path, version: Path, *, advance: Advance) -> RemoteFile:
    known, start = "", 0
    with suppress(FileNotFoundError):
        known = version.read_text()
        start = draft.stat().st_size
    if start and start == file.size:  # all there, but the process ended before it was checked
        return file
    try:
        with open_http(file.href, headers=file.headers, start=start, version=known) as stream:
            _append(file, draft, version, stream=stream, advance=advance)
            return replace(file, checksum=file.checksum or stream.checksum)
    except HttpError as error:
        if error.status == 416:  # bytes that the file does not have, as of one that has become shorter
            draft.unlink(missing_ok=True)
            version.unlink(missing_ok=True)
        raise


def _append(file: RemoteFile, draft: Path, version: Path, *, stream: Stream, advance: Advance) -> None:
    with draft.open("ab" if stream.start else "wb") as sink:
        # After the old content is gone, because a version must never stand beside content of another one.
        version.write_text(stream.version)
        advance(file, stream.start)
        _write(file, sink, stream.chunks, size=stream.size, advance=advance)
        arrived = sink.tell()
    if arrived < (stream.size or 0) and (file.size is None or arrived <= file.size):
        raise HttpError(f"{file.name} broke off after {arrived} of {stream.size} bytes", passing=True)


def _write(file: RemoteFile, sink: BinaryIO, chunks: Iterable[bytes], *, size: int | None, advance: Advance) -> None:
    """Append what arrives, and no more than what provider or server have stated."""
    stated = file.size if file.size is not None else size
    free = shutil.disk_usage(Path(sink.name).parent).free
    if stated is not None and stated - sink.tell() > free:
        raise OSError(errno.ENOSPC, f"it has {stated:,} bytes, and {free:,} are free in {Path(sink.name).parent}")
    for chunk in chunks:
        sink.write(chunk)
        advance(file, len(chunk))
        if stated is None and sink.tell() > _LARGEST_UNSTATED_BYTES:
            raise OSError(
                f"neither item nor server state its size, and it has more than {_LARGEST_UNSTATED_BYTES:,} bytes, which is "
                "the limit then; ask the provider for file:size"
            )
        if stated is not None and sink.tell() > stated:
            return  # what it has too much is found when it is checked


def _wrong(file: RemoteFile, draft: Path) -> str:
    """How a draft differs from what the provider says, or from a raster; empty where it does not."""
    size = draft.stat().st_size
    if file.size is not None and size != file.size:
        return f"it has {size if size < file.size else 'more'} bytes instead of {file.size}"
    if file.checksum is not None and (found := checksum_of(draft, file.checksum.algorithm)) != file.checksum:
        return f"its {found.algorithm} is {found.digest} instead of {file.checksum.digest}"
    with draft.open("rb") as opened:
        beginning = opened.read(512).decode(errors="replace").strip()
    if beginning.lower().startswith(("<!doctype html", "<html")) and not _is_page(file):
        return (
            f"it is a web page that begins with {beginning[:80]!r}, as servers send it to those who have not logged in (give "
            "credentials in access: headers:)"
        )
    if is_raster(file.name):
        try:
            require_raster(draft)
        except CubeError as error:
            return f"it is no whole raster: {str(error.__cause__ or error).rstrip('.')}"
    return ""


def _is_page(file: RemoteFile) -> bool:
    """Whether a file is a web page, and not what a server sends instead of it."""
    return "html" in (file.media_type or "") or file.name.lower().endswith((".html", ".htm"))
