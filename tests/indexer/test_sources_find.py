"""Which files are found."""

import errno
import os
from pathlib import Path

import pytest

from indexer.documents import Skipped
from indexer.reading.finding import find
from rag.errors import ConfigError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")


def test_every_known_type_is_found_in_sorted_order_under_its_relative_name(tmp_path: Path) -> None:
    names = ["a.md", "b/c.MDX", "b/d.html", "e.htm", "f.txt", "g.csv", "h.pdf", "i.docx"]
    _touch(tmp_path, *names, "j.png", "k", "l.py")
    assert [source for _, source in find([tmp_path]).files] == sorted(names)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, "seen.md", ".hidden.md", ".git/objects.md", "a/.b/c.md")
    assert [source for _, source in find([tmp_path]).files] == ["seen.md"]


def test_a_hidden_folder_that_is_named_is_read(tmp_path: Path) -> None:
    _touch(tmp_path, ".site/page.md")
    assert [source for _, source in find([tmp_path / ".site"]).files] == ["page.md"]


def test_links_in_circles_end_and_no_file_is_found_twice(tmp_path: Path) -> None:
    _touch(tmp_path, "a/page.md")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "again.md").symlink_to(tmp_path / "a" / "page.md")
    assert len(find([tmp_path, tmp_path / "a", tmp_path / "a" / "page.md"]).files) == 1


def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    _touch(tmp_path, ".data/page.md")
    (tmp_path / "page.md").symlink_to(tmp_path / ".data" / "page.md")
    assert [source for _, source in find([tmp_path]).files] == ["page.md"]


def test_links_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    _touch(tmp_path, "site/page.md", "secret/passwords.txt")
    (tmp_path / "site" / "stolen.txt").symlink_to(tmp_path / "secret" / "passwords.txt")
    (tmp_path / "site" / "stolen").symlink_to(tmp_path / "secret")
    assert [source for _, source in find([tmp_path / "site"]).files] == ["page.md"]


def test_a_single_file_is_known_by_its_name(tmp_path: Path) -> None:
    _touch(tmp_path, "deep/down/page.md")
    assert find([tmp_path / "deep/down/page.md"]).files == [(tmp_path / "deep/down/page.md", "page.md")]


def test_each_folder_is_a_root_and_only_equal_names_get_their_folder_in_front(tmp_path: Path) -> None:
    _touch(tmp_path, "content/index.md", "content/deep/a.md", "static/index.md", "static/b.pdf")
    names = ["b.pdf", "deep/a.md", "index.md", "static/index.md"]
    assert [source for _, source in find([tmp_path / "content", tmp_path / "static"]).files] == names


def test_a_folder_within_another_one_that_is_named_too_is_read_once(tmp_path: Path) -> None:
    _touch(tmp_path, "site/index.md", "site/deep/a.md")
    found = find([tmp_path / "site" / "deep", tmp_path / "site"]).files
    assert [source for _, source in found] == ["a.md", "index.md"]


def test_a_link_that_is_named_keeps_its_own_name(tmp_path: Path) -> None:
    _touch(tmp_path, "deep/page.md")
    (tmp_path / "named.md").symlink_to(tmp_path / "deep" / "page.md")
    assert find([tmp_path / "named.md"]).files == [(tmp_path / "named.md", "named.md")]


def test_a_folder_that_cannot_be_opened_is_skipped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a/page.md", "locked/page.md", "z/page.md")
    opened = os.scandir

    def refuse(path: str) -> object:
        # Root, as whom tests may run, may open everything.
        if str(path).endswith("locked"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find([tmp_path])
    assert [source for _, source in found.files] == ["a/page.md", "z/page.md"]
    assert found.skipped == [Skipped("locked/", "permission denied")]
    with pytest.raises(ConfigError, match="locked: permission denied"):
        find([tmp_path / "locked"])


def test_every_source_that_does_not_exist_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        find([tmp_path / "nowhere", tmp_path, tmp_path / "gone.md"])
    assert len(caught.value.faults) == 2
    assert str(tmp_path / "nowhere") in caught.value.faults[0]
    assert "gone.md" in caught.value.faults[1]


def test_a_named_file_of_an_unknown_type_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    _touch(tmp_path, "page.rtf")
    with pytest.raises(ConfigError, match=r"page\.rtf.*\.docx"):
        find([tmp_path / "page.rtf"])


def test_a_folder_called_like_a_file_is_only_a_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "folder.md/page.md")
    assert [source for _, source in find([tmp_path]).files] == ["folder.md/page.md"]
