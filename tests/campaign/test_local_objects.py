"""Objects in a folder."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from rtsx.storage import stage
from rtsx.storage.object_store import LocalObjects
from rtsx.storage.retry import kind_of


def test_what_a_killed_process_left_is_no_object(tmp_path: Path) -> None:
    store = LocalObjects(str(tmp_path))
    store.put("marks/a.json", b"x")
    (tmp_path / "marks" / ".b.json.0123.part").write_bytes(b"half")
    with stage(tmp_path / "marks" / "d.json") as living:
        left = tmp_path / "marks" / ".c.json.partial" / living.name
        left.mkdir(parents=True)
        (left / "draft").write_bytes(b"half")
        assert [found.key for found in store.list("marks")] == ["marks/a.json"]
        assert not left.parent.exists()
        assert living.exists()


def test_a_refused_writer_leaves_nothing(tmp_path: Path) -> None:
    store = LocalObjects(str(tmp_path))
    assert store.create("marks/a.json", b"x")
    assert not store.create("marks/a.json", b"y")
    assert [file.name for file in (tmp_path / "marks").iterdir()] == ["a.json"]


def test_a_link_whose_answer_was_lost_is_known_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Path.hardlink_to

    def link_and_lose(self: Path, target: Path) -> None:
        link(self, target)
        raise FileExistsError(errno.EEXIST, "asked again", str(self))

    monkeypatch.setattr(Path, "hardlink_to", link_and_lose)
    assert LocalObjects(str(tmp_path)).create("a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "marks").write_bytes(b"")
    store = LocalObjects(str(tmp_path))
    assert list(store.list("marks")) == []
    with pytest.raises(NotADirectoryError):
        store.put("marks/a.json", b"x")


def test_a_full_disk_ends_the_run_and_leaves_nothing_half(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(64 * 1024)
    store = LocalObjects(str(folder))
    store.put("a", b"old")
    for write in (store.put, store.create):
        with pytest.raises(OSError, match="No space") as error:
            write("a" if write == store.put else "b", bytes(100_000))
        assert kind_of(error.value) == "halting"
    assert store.get("a") == b"old"
    assert [file.name for file in folder.iterdir()] == ["a"]


def test_missing_rights_end_the_run(without_rights: Path) -> None:
    store = LocalObjects(str(without_rights))
    assert store.get("a") is None
    for write in (store.put, store.create):
        with pytest.raises(PermissionError) as error:
            write("a", b"x")
        assert kind_of(error.value) == "halting"
