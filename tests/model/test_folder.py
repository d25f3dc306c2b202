from pathlib import Path

import fsspec
import pytest

from rtsx.errors import BundleError, OutputExistsError, OutputNotWritableError
from rtsx.model.folder import write_folder

FILES = {"weights": b"w", "item.json": b"{}"}


def test_a_local_folder_appears_whole(tmp_path):
    write_folder(str(tmp_path / "deep" / "bundle"), FILES, overwrite=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "deep" / "bundle").iterdir()} == FILES
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bundle"]


def test_what_exists_is_kept_unless_told(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "old").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"bundle exists already. .*overwrite=True"):
        write_folder(str(target), FILES, overwrite=False)
    assert (target / "old").read_text() == "mine"
    write_folder(str(target), FILES, overwrite=True)
    assert sorted(path.name for path in target.iterdir()) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    target = tmp_path / "bundle"
    write_folder(str(target), {"item.json": b"old"}, overwrite=False)
    written = []

    def full_disk(path, content):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        return len(content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match=r"No space left"):
        write_folder(str(target), FILES, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (target / "item.json").read_bytes() == b"old"


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputNotWritableError, match=r"file/bundle cannot be written: .*may write to"):
        write_folder(str(tmp_path / "file" / "bundle"), FILES, overwrite=False)
    with pytest.raises(BundleError, match=r"'nowhere://bundle' cannot be written: .*Check the URL"):
        write_folder("nowhere://bundle", FILES, overwrite=False)


def test_an_object_store_gets_the_mark_last(monkeypatch):
    fs = fsspec.filesystem("memory")
    order = []
    write_once = type(fs).pipe_file

    def recording(self, path, value, **keywords):
        order.append(path.rpartition("/")[2])
        return write_once(self, path, value, **keywords)

    monkeypatch.setattr(type(fs), "pipe_file", recording)
    write_folder("memory://folder-test/bundle", FILES, overwrite=False)
    assert order == list(FILES)
    with pytest.raises(OutputExistsError, match=r"exists already"):
        write_folder("memory://folder-test/bundle", FILES, overwrite=False)
    write_folder("memory://folder-test/bundle", {"item.json": b"new"}, overwrite=True)
    assert fs.ls("/folder-test/bundle", detail=False) == ["/folder-test/bundle/item.json"]
