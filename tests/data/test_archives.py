"""Archives are unpacked whole, into their folder and nowhere else; what is hostile or broken leaves nothing."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoshift.data import archives
from oncoshift.data.archives import STAMP, fill_once, is_archive, member_path, unpack
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("tiles.zip", "tiles.tar", "tiles.tar.gz", "tiles.TGZ", "tiles.tar.bz2", "tiles.tar.xz")
UNSAFE = ("/etc/a.png", "../a.png", "lung/../../a.png", "..\\a.png", "C:\\a.png", "c:/a.png", "\\\\host\\a.png")


def images_only(path: PurePosixPath) -> bool:
    return path.suffix.lower() == ".png"


def write(path: Path, members: dict[str, bytes]) -> Path:
    """An archive of the kind that its name says, with members under exactly these names."""
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(zipfile.ZipInfo(member), content, zipfile.ZIP_DEFLATED)
        return path
    mode = next((f"w:{kind}" for kind in ("bz2", "xz") if name.endswith(kind)), "w:gz" if "gz" in name else "w")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.name != STAMP}


def refuses(archive: Path, match: str, keep: Callable[[PurePosixPath], bool] = images_only) -> None:
    """The archive is refused in these words, and nothing is left of the attempt."""
    target = archive.parent / "out" / "unpacked"
    before = {path.name for path in archive.parent.iterdir()} | {"out"}
    with pytest.raises(DataError, match=match) as error:
        unpack(archive, target, keep)
    assert str(archive) in str(error.value)
    assert not (target.parent.exists() and list(target.parent.iterdir()))
    assert {path.name for path in archive.parent.iterdir()} | {"out"} == before


@pytest.mark.parametrize("name", KINDS)
def test_what_is_wanted_is_unpacked_and_nothing_else(tmp_path: Path, name: str) -> None:
    members = {
        "set/lung/a.png": b"1", "set/B.PNG": b"22", "set\\colon\\c.png": b"333", "./d.png": b"",
        "set/run.sh": b"x", ".e.png": b"x", "__MACOSX/set/._a.png": b"x", "set/.git/f.png": b"x",
    }  # fmt: skip
    archive = write(tmp_path / name, members)
    assert is_archive(archive)
    unpack(archive, tmp_path / "out", images_only)
    expected = {"set/lung/a.png": b"1", "set/B.PNG": b"22", "set/colon/c.png": b"333", "d.png": b""}
    assert tree(tmp_path / "out") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["out", name])


def test_no_rights_and_owners_come_along(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.mode, info.uid = 0o4777, 1234
        archive.addfile(info)
    unpack(tmp_path / "a.tar", tmp_path / "out", images_only)
    assert not (tmp_path / "out" / "a.png").stat().st_mode & 0o7111


def test_an_unchanged_archive_is_not_unpacked_again_and_a_changed_one_replaces_all(tmp_path: Path) -> None:
    archive, out = write(tmp_path / "a.zip", {"a.png": b"1", "b.png": b"2"}), tmp_path / "out"
    unpack(archive, out, images_only)
    (out / "a.png").write_bytes(b"seen")
    unpack(archive, out, images_only)
    assert (out / "a.png").read_bytes() == b"seen"
    write(archive, {"c.png": b"3"})
    unpack(archive, out, images_only)
    assert tree(out) == {"c.png": b"3"}


def test_a_killed_process_leaves_the_folder_as_it_was_and_is_cleaned_up_after(tmp_path: Path) -> None:
    archive, out = write(tmp_path / "a.zip", {"a.png": b"1"}), tmp_path / "out"
    unpack(archive, out, images_only)
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "half.png").write_bytes(b"")

    def killed(folder: Path) -> None:
        assert not list(folder.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_once(out, {"archive": "another"}, killed)
    assert tree(out) == {"a.png": b"1"}
    assert not left.exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("member", UNSAFE)
def test_no_member_leaves_the_folder(tmp_path: Path, name: str, member: str) -> None:
    refuses(write(tmp_path / name, {"good.png": b"1", member: b"2"}), "outside of its folder")


def test_an_unsafe_name_is_refused_even_if_the_member_is_not_wanted(tmp_path: Path) -> None:
    refuses(write(tmp_path / "a.tar", {"good.png": b"1", "../notes.txt": b"2"}), "outside of its folder")


@given(st.text(max_size=40))
def test_a_members_path_is_below_the_folder_or_refused(name: str) -> None:
    try:
        path = member_path(Path("a.zip"), name)
    except DataError:
        return
    base = Path("/base")
    resolved = Path(str(base / path).replace("\\", "/"))
    assert resolved.is_relative_to(base)
    assert ".." not in resolved.parts


@given(st.lists(st.sampled_from(["..", ".", "a", "b.png", "", "C:", "~"]), max_size=6), st.sampled_from(["/", "\\"]))
def test_paths_of_dangerous_parts_stay_below_the_folder_or_are_refused(parts: list[str], separator: str) -> None:
    name = separator.join(parts)
    try:
        path = member_path(Path("a.zip"), name)
    except DataError:
        assert ".." in parts or name.startswith(separator) or parts[0] == "C:" or "C:" in parts
    else:
        assert not path.is_absolute()
        assert ".." not in path.parts


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("lung.png")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    refuses(tmp_path / "a.tar", "is a link or a device")


def test_a_folder_that_is_a_link_cannot_lead_outside(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("lung")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("lung/escaped.png"))
    refuses(tmp_path / "a.tar", "'lung' is a link")


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("lung.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    refuses(tmp_path / "a.zip", "is a link or a device")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.zip", {"a.png": b"1"}).read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(mark) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    refuses(tmp_path / "a.zip", "is encrypted")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.xz"])
@pytest.mark.parametrize("member", ["a.png", "padding.bin"])
def test_a_bomb_is_refused(tmp_path: Path, name: str, member: str) -> None:
    archive = write(tmp_path / name, {"first.png": b"1", member: bytes(archives.SMALL + 2)})
    assert archive.stat().st_size * archives.MAX_RATIO < archives.SMALL
    refuses(archive, "decompression bomb")


def test_a_zip_that_understates_a_size_is_refused(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.zip", {"a.png": bytes(10_000)}).read_bytes())
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", data, data.index(mark) + offset, 10)
    (tmp_path / "a.zip").write_bytes(data)
    refuses(tmp_path / "a.zip", "damaged")


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    for name in ("a.zip", "a.tar"):
        refuses(write(tmp_path / name, {f"{number}.png": b"" for number in range(4)}), "more than 3 members")
        (tmp_path / name).unlink()


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "RESERVE", 2**62)
    for name in ("a.zip", "a.tar"):
        refuses(write(tmp_path / name, {"a.png": b"1"}), "the disk has 0 to spare")
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_a_damaged_archive_is_refused(tmp_path: Path, name: str, share: float) -> None:
    noise = bytes(range(256)) * 40
    archive = write(tmp_path / name, {f"{number}.png": noise[number:] for number in range(8)})
    whole = archive.read_bytes()
    archive.write_bytes(whole[: int(len(whole) * share)])
    refuses(archive, "damaged|cannot be unpacked")


def test_a_member_named_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"))
        archive.addfile(tarfile.TarInfo("./a.png"))
    refuses(tmp_path / "a.tar", "is there twice")


def test_a_file_where_a_folder_must_be_is_refused(tmp_path: Path) -> None:
    refuses(write(tmp_path / "a.tar", {"lung.png": b"1", "lung.png/a.png": b"2"}), "cannot be unpacked")


@pytest.mark.parametrize("member", ["a\nb.png", "a\x07.png", "a\udcff.png"])
def test_names_that_are_no_text_are_refused(tmp_path: Path, member: str) -> None:
    with pytest.raises(DataError, match="a name that is no text"):
        member_path(tmp_path, member)


def test_too_long_a_name_is_refused(tmp_path: Path) -> None:
    refuses(write(tmp_path / "a.tar", {f"{'a' * 300}.png": b"1"}), "too long")


def test_an_archive_without_tiles_is_refused(tmp_path: Path) -> None:
    refuses(write(tmp_path / "a.zip", {"readme.txt": b"1"}), "holds 1 members, and no tiles")


def test_only_files_with_an_archives_name_are_archives(tmp_path: Path) -> None:
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "a.rar").touch()
    (tmp_path / "a.Zip").touch()
    assert [is_archive(tmp_path / name) for name in ("folder.zip", "a.rar", "a.Zip", "no.zip")] == [
        False, False, True, False,
    ]  # fmt: skip
