from pathlib import Path

import fsspec
import pytest

from rtsx.errors import BundleError, OutputExistsError, OutputNotWritableError
from rtsx.model.bundle_io import write_folder

FILES = {"weights.safetensors": b"w", "item.json": b"{}"}


def test_a_local_folder_appears_whole(tmp_path):
    write_folder(str(tmp_path / "deep" / "bundle"), FILES, overwrite=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "deep" / "bundle").iterdir()} == FILES
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["bundle"]


def test_what_exists_is_kept_unless_told(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    (target / "item.json").write_text("mine")
    (target / "model.onnx").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"bundle exists already. .*overwrite=True"):
        write_folder(str(target), FILES, overwrite=False)
    assert (target / "item.json").read_text() == "mine"
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
    with pytest.raises(OutputNotWritableError, match=r"bundle was not written: .*No space left.*Free space") as caught:
        write_folder(str(target), FILES, overwrite=True)
    assert isinstance(caught.value.__cause__, OSError)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (target / "item.json").read_bytes() == b"old"


@pytest.mark.parametrize("place", ["local", "memory"])
@pytest.mark.parametrize(
    ("name", "message"),
    [("chapter.txt", r"is no bundle \(it has no item.json\)"), ("item.json", r"holds more than a bundle: \['notes'\]")],
)
def test_what_is_more_than_a_bundle_is_never_replaced(tmp_path, place, name, message):
    target = str(tmp_path / "thesis") if place == "local" else f"memory://folder-test/{name}/thesis"
    fs, inside = fsspec.core.url_to_fs(target)
    fs.makedirs(inside, exist_ok=True)
    for file in (name, "notes"):
        fs.pipe_file(f"{inside}/{file}", b"years of work")
    with pytest.raises(OutputExistsError, match=message):
        write_folder(target, FILES, overwrite=True)
    assert fs.cat_file(f"{inside}/notes") == b"years of work"


def test_a_file_is_never_replaced_by_a_folder(tmp_path):
    (tmp_path / "bundle").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"is a file, not a bundle"):
        write_folder(str(tmp_path / "bundle"), FILES, overwrite=True)


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
