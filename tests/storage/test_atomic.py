import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rtsx.errors import OutputExistsError, OutputNotWritableError
from rtsx.storage import remove, staged, write_object, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def make(path: Path, text: str, *, is_folder: bool, overwrite: bool = False) -> None:
    with staged(path, overwrite=overwrite, replaceable=(lambda _: None) if is_folder else None) as draft:
        if is_folder:
            draft.mkdir()
        (draft / "a" if is_folder else draft).write_text(text)


def write_half(path: Path) -> None:
    with staged(path, overwrite=False) as draft:
        draft.write_text("half")
        raise ValueError("half")


def make_late(path: Path, *, is_folder: bool) -> None:
    with staged(path, overwrite=False) as draft:
        make(draft, "ours", is_folder=is_folder)
        make(path, "theirs", is_folder=is_folder)


def content(path: Path) -> str:
    return (path / "a" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("is_folder", [False, True])
@pytest.mark.parametrize("name", ["a.tif", "[aoi] 50%.gpkg", "(2024) a?b*.zarr", "2024:07.fgb", "größe {1}"])
def test_it_appears_whole_is_replaced_at_once_and_nothing_else_is_left(
    name: str, is_folder: bool, tmp_path: Path
) -> None:
    target = tmp_path / "new" / name
    with pytest.raises(ValueError, match="half"):
        write_half(target)
    assert not any(tmp_path.iterdir())  # the folder that was made for it is gone as well
    make(target, "first", is_folder=is_folder)
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        make(target, "second", is_folder=is_folder)
    make(target, "second", is_folder=is_folder, overwrite=True)
    assert content(target) == "second"
    assert names(target.parent) == [name]


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_appears_meanwhile_is_kept(is_folder: bool, tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(OutputExistsError, match="appeared while"):
        make_late(target, is_folder=is_folder)
    assert content(target) == "theirs"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_link_is_followed_also_where_nothing_is_yet(is_folder: bool, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "a"
    link.symlink_to("disk/b")
    make(link, "first", is_folder=is_folder)
    make(link, "second", is_folder=is_folder, overwrite=True)
    assert link.is_symlink()
    assert content(tmp_path / "disk" / "b") == "second"
    assert names(tmp_path) == ["a", "disk"]
    assert names(tmp_path / "disk") == ["b"]


@pytest.mark.parametrize("has_exchange", [False, True])
def test_there_is_no_moment_without_either_folder(
    has_exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a"
    make(target, "old", is_folder=True)
    if not has_exchange:
        monkeypatch.setattr("rtsx.storage.atomic.ctypes.CDLL", lambda *_, **__: None)
    renamed: list[Path] = []
    plain = Path.rename

    def rename(self: Path, other: Path) -> Path:
        renamed.append(self)
        if self.name.startswith("draft"):
            raise OSError(5, "Input/output error")
        return plain(self, other)

    monkeypatch.setattr(Path, "rename", rename)
    if has_exchange:
        make(target, "new", is_folder=True, overwrite=True)
        assert not renamed
    else:  # a file system where names cannot change places: there the old one comes back
        with pytest.raises(OutputNotWritableError, match="Input/output"):
            make(target, "new", is_folder=True, overwrite=True)
    assert content(target) == ("new" if has_exchange else "old")
    assert names(tmp_path) == ["a"]


def test_what_another_machine_left_is_removed_when_it_has_not_changed_for_a_day(tmp_path: Path) -> None:
    stages = tmp_path / ".a.tif.partial"
    for name in ("ffffffff-old", "ffffffff-new"):
        (stages / name).mkdir(parents=True)
        (stages / name / "draft.tif").touch()
    for path in (stages / "ffffffff-old" / "draft.tif", stages / "ffffffff-old"):
        os.utime(path, (0, 0))
    write_whole(tmp_path / "a.tif", b"ours")
    assert names(stages) == ["ffffffff-new"]


@pytest.mark.parametrize("name", ["ä" * 127, "a" * 255])
def test_a_name_as_long_as_the_file_system_takes_is_written_and_a_longer_one_refused_first(
    name: str, tmp_path: Path
) -> None:
    make(tmp_path / name, "text", is_folder=True)
    assert names(tmp_path) == [name]
    with pytest.raises(OutputNotWritableError, match="too long"), staged(tmp_path / f"{name}ab", overwrite=True):
        raise AssertionError("the block ran")


def test_an_object_is_created_by_one(tmp_path: Path) -> None:
    target = tmp_path / "cells" / "a.json"
    assert [write_object(target, word, replace=False) for word in (b"first", b"second")] == [True, False]
    assert target.read_bytes() == b"first"
    assert write_object(target, b"third", replace=True)
    assert target.read_bytes() == b"third"
    assert names(target.parent) == ["a.json"]


def test_a_hidden_folder_that_others_take_away_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir, failures = (
        Path.mkdir,
        [FileExistsError(), FileNotFoundError()],
    )  # as mkdir has it, by the moment of the removal

    def taken_away(path: Path, **settings: bool) -> None:
        if path.name.endswith(".partial") and failures:
            raise failures.pop()
        mkdir(path, **settings)

    monkeypatch.setattr(Path, "mkdir", taken_away)
    assert write_object(tmp_path / "a", b"all", replace=False)
    assert not failures
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"all")]


def test_a_folder_or_a_device_is_no_file_to_replace(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (("a", "a folder"), ("pipe", "no regular file")):
        with pytest.raises(OutputExistsError, match=f"is {kind}, so it is not overwritten"):
            write_whole(tmp_path / name, b"new")


def test_a_place_that_cannot_be_written_is_found_out_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputNotWritableError, match="may write to"), staged(tmp_path / "file" / "a", overwrite=False):
        raise AssertionError("the block ran")


def test_a_folder_is_removed_at_once(tmp_path: Path) -> None:
    make(tmp_path / "a", "text", is_folder=True)
    remove(tmp_path / "a")
    assert not any(tmp_path.iterdir())


KILLED = """
import sys
from rtsx.storage import staged
with staged(sys.argv[1], overwrite=True) as draft:
    draft.write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_process_left_is_removed_and_a_living_ones_is_not(tmp_path: Path) -> None:
    target = tmp_path / "a.tif"
    command = [sys.executable, "-c", KILLED, str(target)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as living,
    ):
        for process in (killed, living):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        stages = tmp_path / ".a.tif.partial"
        assert len(names(stages)) == 2
        write_whole(target, b"ours")
        assert len(names(stages)) == 1  # what the living one is at
        assert target.read_bytes() == b"ours"
        living.communicate()
    assert names(tmp_path) == ["a.tif"]
    assert target.read_text() == "half"


def write_without_folder(path: Path, failure: Exception | None) -> None:
    with staged(path, overwrite=False) as draft:
        shutil.rmtree(draft.parent)
        if failure is not None:
            raise failure


@pytest.mark.parametrize("failure", [None, FileNotFoundError("draft.zarr does not exist"), KeyError("zarr.json")])
def test_a_hidden_folder_that_somebody_removes_meanwhile_is_told(failure: Exception | None, tmp_path: Path) -> None:
    with pytest.raises(OutputNotWritableError, match=r"its hidden folder .* was removed meanwhile.* Run again"):
        write_without_folder(tmp_path / "a.zarr", failure)
