import os
import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
from affine import Affine
from rasterio.io import MemoryFile

from rtsx.errors import OrderError
from rtsx.ordering import download
from rtsx.ordering.download import fetch_file, fetch_files, pauses_until
from rtsx.ordering.provider import Checksum, RemoteFile, checksum_of

DATA = os.urandom(400_000)


@pytest.fixture
def remote(file_server):
    """Make a remote file: ``remote(name, data, **fields)``."""

    def make(name="a.bin", data=DATA, **fields):
        path = file_server.folder / name
        path.write_bytes(data)
        known = {"size": len(data), "checksum": checksum_of(path)} | fields
        return RemoteFile(scene_id="s", asset="image", name=name, href=f"{file_server.url}/{name}", **known)

    return make


@pytest.fixture
def pauses():
    return []


def test_a_file_arrives_whole_and_alone(remote, tmp_path, pauses):
    pieces = []
    fetch_file(
        remote(), tmp_path / "out" / "a.bin", advance=lambda file, count: pieces.append(count), pause=pauses.append
    )
    assert (tmp_path / "out" / "a.bin").read_bytes() == DATA
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.bin"]
    assert sum(pieces) == len(DATA)


def test_what_is_there_is_not_asked_for(remote, file_server, tmp_path):
    (tmp_path / "a.bin").write_bytes(DATA)
    fetch_file(remote(), tmp_path / "a.bin")
    fetch_file(remote(size=None, checksum=None), tmp_path / "a.bin")
    assert file_server.asked == []


PAGE = b" <!DOCTYPE html><html>please log in</html>"


@pytest.mark.parametrize("there", [b"", b"mine", DATA[:-1], DATA[1:] + b"x"])
def test_what_is_there_and_is_not_it_is_fetched_anew(remote, tmp_path, there):
    (tmp_path / "a.bin").write_bytes(there)
    fetch_file(remote(), tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA


@pytest.fixture
def tiff():
    with MemoryFile() as memory:
        profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 2, "dtype": "uint16", "crs": "EPSG:32607"}
        with memory.open(**profile, transform=Affine(3, 0, 0, 0, -3, 0)) as file:
            file.write(np.ones((2, 64, 64), "uint16"))
        return memory.read()


@pytest.mark.parametrize("damage", [lambda tiff: PAGE, lambda tiff: b"{}", lambda tiff: b"", lambda tiff: tiff[:-9]])
def test_what_is_no_raster_never_gets_the_name_of_one(remote, tmp_path, tiff, damage):
    unknown = {"size": None, "checksum": None}
    page = remote("a.tif", damage(tiff), **unknown)
    (tmp_path / "a.tif").write_bytes(damage(tiff))  # of an earlier rtsx
    with pytest.raises(OrderError, match=r"arrived 5 times, but it is (no whole raster|a web page that begins with)"):
        fetch_file(page, tmp_path / "a.tif")
    fetch_file(remote("a.tif", tiff, **unknown), tmp_path / "a.tif")
    assert (tmp_path / "a.tif").read_bytes() == tiff


def test_a_web_page_is_kept_only_where_one_is_wanted(remote, tmp_path):
    unknown = {"size": None, "checksum": None}
    fetch_file(remote("a.html", PAGE, **unknown), tmp_path / "a.html")
    fetch_file(remote("b", PAGE, media_type="text/html", **unknown), tmp_path / "b")
    with pytest.raises(OrderError, match=r"is a web page .* \(give credentials in access: headers:\)"):
        fetch_file(remote("a.json", PAGE, **unknown), tmp_path / "a.json")


def test_what_is_longer_than_stated_is_not_read_to_its_end(remote, tmp_path):
    pieces = []
    with pytest.raises(OrderError, match="more bytes instead of 1000"):
        fetch_file(remote(size=1000), tmp_path / "a.bin", advance=lambda file, count: pieces.append(count))
    assert sum(pieces) < 5 * 2**17
    with pytest.raises(OrderError, match=r"it has [\d,]+ bytes, and [\d,]+ are free in"):
        fetch_file(remote(size=2**60), tmp_path / "a.bin")


@pytest.mark.parametrize("scheme", ["http", "memory"])
def test_a_file_of_unknown_size_has_a_limit(remote, file_server, tmp_path, monkeypatch, scheme):
    file = remote(size=None, checksum=None)
    file_server.sized = False
    if scheme == "memory":
        fsspec.filesystem("memory").pipe("/rtsx-ordering/in.bin", DATA)
        file = RemoteFile(scene_id="s", asset="a", name="a.bin", href="memory://rtsx-ordering/in.bin")
    monkeypatch.setattr(download, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(download, "_LARGEST_UNSTATED_BYTES", 1000)
    with pytest.raises(
        OrderError, match=r"more than 1,000 bytes, which is the limit then; ask the provider for file:size"
    ):
        fetch_file(file, tmp_path / "a.bin")
    monkeypatch.undo()
    fetch_file(file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_cut_transfer_goes_on(remote, file_server, tmp_path, pauses):
    file_server.trouble["/a.bin"] = ["cut", "cut"]
    fetch_file(remote(), tmp_path / "a.bin", pause=pauses.append)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    starts = [int(wanted.removeprefix("bytes=").rstrip("-")) for _, wanted, _ in file_server.asked if wanted]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(DATA)
    assert pauses == [2.0, 4.0]


def test_a_process_that_was_killed_goes_on(remote, file_server, tmp_path):
    file = remote()
    file_server.trouble["/a.bin"] = ["cut", 404]
    with pytest.raises(OrderError, match="answers 404"):
        fetch_file(file, tmp_path / "a.bin", pause=lambda seconds: None)
    assert not (tmp_path / "a.bin").exists()
    fetch_file(file, tmp_path / "a.bin")
    assert file_server.asked[-1][1] is not None
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_file_that_changed_meanwhile_is_taken_from_the_beginning(remote, file_server, tmp_path, pauses):
    old = remote()
    file_server.trouble["/a.bin"] = ["cut", 404]
    with pytest.raises(OrderError):
        fetch_file(old, tmp_path / "a.bin", pause=pauses.append)
    new = remote(data=DATA[::-1])
    fetch_file(new, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == DATA[::-1]


def test_without_a_version_nothing_is_pieced_together(remote, file_server, tmp_path):
    file_server.tagged = False
    file_server.trouble["/a.bin"] = ["cut"]
    fetch_file(remote(size=None, checksum=None), tmp_path / "a.bin", pause=lambda seconds: None)
    assert (tmp_path / "a.bin").read_bytes() == DATA
    assert all(wanted is None for _, wanted, _ in file_server.asked)


def test_a_download_that_is_over_waits_no_more():
    over = threading.Event()
    pause = pauses_until(over)
    pause(0)
    over.set()
    with pytest.raises(OrderError, match="was stopped"):
        pause(1800)


def test_the_server_says_how_long_to_wait(remote, file_server, tmp_path, pauses):
    file_server.trouble["/a.bin"] = [503, 429]
    fetch_file(remote(), tmp_path / "a.bin", pause=pauses.append)
    assert pauses == [7.0, 2.0]  # what the server asks for is no attempt


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_does_not_pass_is_told_at_once(remote, file_server, tmp_path, pauses, status):
    file_server.trouble["/a.bin"] = [status]
    with pytest.raises(OrderError, match=rf"a.bin of scene s cannot be fetched: .*answers {status} .*\(attempt 1\)"):
        fetch_file(remote(), tmp_path / "a.bin", pause=pauses.append)
    assert pauses == []


def test_a_token_is_not_printed(remote, file_server, tmp_path):
    file = remote()
    secret = RemoteFile(
        scene_id="s", asset="image", name="b.tif", href=f"{file_server.url}/b.tif?token=secret", headers={"K": "secret"}
    )
    with pytest.raises(OrderError) as told:
        fetch_file(secret, tmp_path / "b.tif")
    assert "secret" not in str(told.value) + str(told.value.__cause__)
    assert "secret" not in repr(file)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"size": 399_999}, "more bytes instead of 399999"),
        ({"checksum": Checksum("md5", 32 * "0")}, "its md5 is .* instead of 000"),
    ],
)
def test_what_does_not_add_up_never_gets_its_name(remote, file_server, tmp_path, fields, told):
    with pytest.raises(OrderError, match=f"arrived 5 times, but .*{told}"):
        fetch_file(remote(**fields), tmp_path / "a.bin")
    assert list(tmp_path.glob("*.bin")) == list(tmp_path.glob(".a*")) == []


def test_files_come_side_by_side_but_never_more_than_asked(remote, tmp_path):
    files = [remote(f"{n}.bin", DATA[: 1000 + n]) for n in range(12)]
    running, most, lock = set(), [], threading.Lock()

    def advance(file, count):
        with lock:
            running.add(threading.get_ident())
            most.append(len(running))

    assert fetch_files(files, tmp_path, parallel=3, advance=advance) == {}
    assert max(most) <= 3
    assert {path.name for path in (tmp_path / "s").iterdir()} == {f"{n}.bin" for n in range(12)}


def test_one_failure_does_not_stop_the_others(remote, file_server, tmp_path):
    good, bad = remote("good.bin"), remote("bad.bin")
    file_server.trouble["/bad.bin"] = [404]
    failures = fetch_files([bad, good], tmp_path)
    assert list(failures) == ["s/bad.bin"]
    assert (tmp_path / "s" / "good.bin").exists()


def test_paths_and_other_file_systems(tmp_path):
    (tmp_path / "in.bin").write_bytes(DATA)
    fsspec.filesystem("memory").pipe("/rtsx-ordering/in.bin", DATA)
    for n, href in enumerate([str(tmp_path / "in.bin"), f"file://{tmp_path}/in.bin", "memory://rtsx-ordering/in.bin"]):
        fetch_file(RemoteFile(scene_id="s", asset="a", name="x", href=href, size=len(DATA)), tmp_path / str(n))
        assert (tmp_path / str(n)).read_bytes() == DATA
    with pytest.raises(OrderError, match="cannot be fetched"):
        fetch_file(RemoteFile(scene_id="s", asset="a", name="x", href=str(tmp_path / "none")), tmp_path / "y")


def test_two_orders_that_bring_one_file_at_once_do_not_mix_it(tmp_path):
    fsspec.filesystem("memory").pipe("/rtsx-ordering/shared.bin", data := os.urandom(3 << 20))
    file = RemoteFile(scene_id="s", asset="a", name="x", href="memory://rtsx-ordering/shared.bin")
    stuck, goes_on = threading.Event(), threading.Event()

    def after_a_piece(*_):
        stuck.set()
        goes_on.wait(30)

    def first_goes_on(_=None):
        goes_on.set()

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(fetch_file, file, tmp_path / "x", advance=after_a_piece)
        stuck.wait(30)
        second = threads.submit(fetch_file, file, tmp_path / "x", pause=first_goes_on)
        second.add_done_callback(first_goes_on)
        first.result()
        second.result()
    assert (tmp_path / "x").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_checksums_as_stac_has_them(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        checksum = checksum_of(tmp_path / "f", algorithm)
        assert Checksum.from_multihash(checksum.multihash.upper()) == checksum
    assert (
        checksum_of(tmp_path / "f").multihash == "1220ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert Checksum.from_multihash("1620" + 64 * "0") is None
    with pytest.raises(OrderError, match="has 64 hexadecimal digits"):
        Checksum("sha256", "00")


def test_a_draft_that_was_complete_is_only_checked(remote, file_server, tmp_path):
    (tmp_path / ".a.bin.partial").write_bytes(DATA)
    (tmp_path / ".a.bin.version").write_text('"1"')
    fetch_file(remote(), tmp_path / "a.bin")
    assert file_server.asked == []
    assert [path.name for path in tmp_path.glob("*a.bin*")] == ["a.bin"]


def test_a_draft_longer_than_the_file_is_begun_anew(remote, file_server, tmp_path, pauses):
    (tmp_path / ".a.bin.partial").write_bytes(2 * DATA)
    (tmp_path / ".a.bin.version").write_text('"1"')
    file_server.trouble["/a.bin"] = [416]
    fetch_file(remote(size=None), tmp_path / "a.bin", pause=pauses.append)
    assert (tmp_path / "a.bin").read_bytes() == DATA


def test_a_link_is_followed(remote, tmp_path):
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "a.bin").symlink_to(tmp_path / "other-disk.bin")
    fetch_file(remote(), tmp_path / "scene" / "a.bin")
    assert (tmp_path / "scene" / "a.bin").is_symlink()
    assert (tmp_path / "other-disk.bin").read_bytes() == DATA
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["other-disk.bin"]
