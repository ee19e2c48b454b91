"""Files that are written completely or not at all."""

import os
from pathlib import Path

import pytest

from vocalsep.errors import OutputError
from vocalsep.files import check_place, replacing, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["x.csv", "合" * 80 + ".csv", "x" * 245 + ".csv", "deep/er/x.csv", "x"])
def test_write_file_makes_or_replaces_it(tmp_path, name):
    for content in (b"old", b"new"):
        check_place(tmp_path / name)
        write_file(tmp_path / name, content)
        assert (tmp_path / name).read_bytes() == content
        assert names((tmp_path / name).parent) == [Path(name).name]


def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "x.csv") as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["x.csv"]
    assert (tmp_path / "x.csv").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["folder", "file/x.csv", "x" * 300, "zero\0byte"])
def test_places_that_cannot_be_written(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        write_file(tmp_path / name, b"content")
    if len(name) < 300:
        with pytest.raises(OutputError):
            check_place(tmp_path / name)
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o555)
    for write in (check_place, lambda path: write_file(path, b"content")):
        with pytest.raises(OutputError):
            write(tmp_path / "locked" / "x.csv")
