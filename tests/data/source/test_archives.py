"""Archives are unpacked completely and only into their folder; bad ones leave nothing behind."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncoshift.data.source import archives
from oncoshift.data.source.archives import is_archive, resolve_member, unpack
from oncoshift.data.source.made_once import STAMP, discard, fill_once
from oncoshift.data.source.tar_members import MAX_COMMON, MAX_DESCRIPTION, MAX_HEADERS
from oncoshift.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("tiles.zip", "tiles.tar", "tiles.tar.gz", "tiles.TGZ", "tiles.tar.bz2", "tiles.tar.xz")
UNSAFE = ("/etc/a.png", "../a.png", "lung/../../a.png", "..\\a.png", "C:\\a.png", "c:/a.png", "\\\\host\\a.png")


def images_only(path: PurePosixPath) -> bool:
    return path.suffix.lower() == ".png"


def write(path: Path, members: dict[str, bytes]) -> Path:
    """Write an archive of the kind that its name says, with members under exactly these names."""
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members.items():
                archive.writestr(zipfile.ZipInfo(member), content, zipfile.ZIP_DEFLATED)
        return path
    mode: Any = next((f"w:{kind}" for kind in ("bz2", "xz") if name.endswith(kind)), "w:gz" if "gz" in name else "w")
    with tarfile.open(path, mode) as archive:
        for member, content in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if path.name != STAMP}


def refuses(archive: Path, match: str, keep: Callable[[PurePosixPath], bool] = images_only) -> None:
    """Check that the archive is refused with this message, and leaves nothing behind."""
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


@pytest.fixture
def killed_in_removal(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that is killed after removing one tile of a complete folder; undo it to resume."""
    remove = shutil.rmtree

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        if (folder / STAMP).is_file():
            next(folder.glob("*.png")).unlink()
            raise KeyboardInterrupt
        remove(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", killed)
    return monkeypatch


def test_what_a_killed_replacement_leaves_is_never_taken_for_whole(
    tmp_path: Path, killed_in_removal: pytest.MonkeyPatch
) -> None:
    first, out = write(tmp_path / "first.zip", {"a.png": b"1", "b.png": b"2"}), tmp_path / "out"
    second = write(tmp_path / "second.zip", {"c.png": b"3"})
    unpack(first, out, images_only)
    with pytest.raises(KeyboardInterrupt):
        unpack(second, out, images_only)
    killed_in_removal.undo()
    assert not out.exists()
    unpack(first, out, images_only)
    assert tree(out) == {"a.png": b"1", "b.png": b"2"}
    unpack(second, out, images_only)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.zip", "out", "second.zip"]


def test_what_a_killed_removal_leaves_is_never_taken_for_whole(
    tmp_path: Path, killed_in_removal: pytest.MonkeyPatch
) -> None:
    archive, out = write(tmp_path / "a.zip", {"a.png": b"1", "b.png": b"2"}), tmp_path / "out"
    unpack(archive, out, images_only)
    with pytest.raises(KeyboardInterrupt):
        discard(out)
    killed_in_removal.undo()
    unpack(archive, out, images_only)
    assert tree(out) == {"a.png": b"1", "b.png": b"2"}
    discard(out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize("member", UNSAFE)
def test_no_member_leaves_the_folder(tmp_path: Path, name: str, member: str) -> None:
    refuses(write(tmp_path / name, {"good.png": b"1", member: b"2"}), "outside of its folder")


def test_an_unsafe_name_is_refused_even_if_the_member_is_not_wanted(tmp_path: Path) -> None:
    refuses(write(tmp_path / "a.tar", {"good.png": b"1", "../notes.txt": b"2"}), "outside of its folder")


@given(st.text(max_size=40))
def test_a_members_path_is_below_the_folder_or_refused(name: str) -> None:
    try:
        path = resolve_member(Path("a.zip"), name)
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
        path = resolve_member(Path("a.zip"), name)
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


@pytest.mark.parametrize(("method", "word"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "LZMA")])
@pytest.mark.parametrize("member", ["a.png", "padding.bin"])
def test_a_zip_of_a_decoder_without_bounds_is_refused(tmp_path: Path, method: int, word: str, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("first.png", b"1")
        archive.writestr(member, b"2", method)
    refuses(tmp_path / "a.zip", f"member '{member}' is compressed with {word}, and only deflate")


def test_a_zip_of_a_method_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    data = bytearray(write(tmp_path / "a.zip", {"a.png": b"1"}).read_bytes())
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        struct.pack_into("<H", data, data.index(mark) + offset, 77)
    (tmp_path / "a.zip").write_bytes(data)
    refuses(tmp_path / "a.zip", "compressed with method 77")


def header(kind: bytes, size: int, name: str = "a.png") -> bytes:
    """Make one header block of a tar with any size."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


DESCRIBING = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
@pytest.mark.parametrize("kind", DESCRIBING)
def test_a_long_description_of_a_member_is_refused_before_it_is_read(tmp_path: Path, name: str, kind: bytes) -> None:
    # The body is missing on purpose: reading it would raise another error.
    write_blocks(tmp_path / name, header(tarfile.REGTYPE, 0), header(kind, MAX_DESCRIPTION + 1))
    refuses(tmp_path / name, "header at byte 1,024 .*no file needs more than 8 extra headers of 1,048,576 bytes")


def write_blocks(path: Path, *blocks: bytes) -> None:
    """Write a tar of exactly these blocks, compressed as its name says."""
    ways: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    path.write_bytes(ways.get(path.suffix, bytes)(b"".join(blocks)))


@pytest.mark.parametrize("kind", DESCRIBING)
def test_many_descriptions_of_one_member_are_refused(tmp_path: Path, kind: bytes) -> None:
    body = bytes(512)
    blocks = [block for _ in range(MAX_HEADERS + 1) for block in (header(kind, 512), body)]
    write_blocks(tmp_path / "a.tar", *blocks, header(tarfile.REGTYPE, 0))
    refuses(tmp_path / "a.tar", f"no file needs more than {MAX_HEADERS} extra headers")


def test_descriptions_of_all_members_add_up(tmp_path: Path) -> None:
    blocks: list[bytes] = []
    for number in range(3):
        records = b"".join(b"12 k%d%02d=abc\n" % (number, key) for key in range(MAX_COMMON // 2 - 1))
        common = header(tarfile.XGLTYPE, len(records)), records.ljust(512, b"\0")
        blocks += [*common, header(tarfile.REGTYPE, 0, f"{number}.png")]
    write_blocks(tmp_path / "a.tar", *blocks[:6], bytes(1024))
    unpack(tmp_path / "a.tar", tmp_path / "unpacked", images_only)
    assert sorted(tree(tmp_path / "unpacked")) == ["0.png", "1.png"]
    write_blocks(tmp_path / "b.tar", *blocks, bytes(1024))
    refuses(tmp_path / "b.tar", f"more than {MAX_COMMON} records that hold for all members")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_many_members_are_read(tmp_path: Path, form: int) -> None:
    names = [f"{'d' * 200}/{'e' * 200}/{number}ü.png" for number in range(MAX_HEADERS * 3)]
    with tarfile.open(tmp_path / "a.tar", "w", format=form, pax_headers={"comment": "c" * 1000}) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    unpack(tmp_path / "a.tar", tmp_path / "out", images_only)
    assert sorted(tree(tmp_path / "out")) == sorted(names)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, *DESCRIBING])
def test_a_negative_size_is_refused(tmp_path: Path, kind: bytes) -> None:
    write_blocks(tmp_path / "a.tar", header(tarfile.REGTYPE, 0), header(kind, -512))
    refuses(tmp_path / "a.tar", "-512 bytes")


def test_a_negative_size_in_a_pax_record_is_refused(tmp_path: Path) -> None:
    record = b"12 size=-99\n"
    blocks = header(tarfile.XHDTYPE, len(record)), record.ljust(512, b"\0"), header(tarfile.REGTYPE, 0)
    write_blocks(tmp_path / "a.tar", *blocks)
    refuses(tmp_path / "a.tar", "says that it has -99 bytes")


@pytest.mark.parametrize(
    "records", [None, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, {"GNU.sparse.map": "0,1"}]
)
def test_a_file_with_holes_is_refused(tmp_path: Path, records: dict[str, str] | None) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT if records else tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("a.png")
        info.type = tarfile.REGTYPE if records else tarfile.GNUTYPE_SPARSE
        info.pax_headers = records or {}
        info.size = 512 if records else 0
        archive.addfile(info, io.BytesIO(b"0\n".ljust(512, b"\0")))  # the holes, where no pax record maps them
    refuses(tmp_path / "a.tar", "'a.png' is stored with holes")


def test_a_broken_header_amid_an_archive_is_not_its_end(tmp_path: Path) -> None:
    blocks = (header(tarfile.REGTYPE, 0, f"{number}.png") for number in range(3))
    write_blocks(tmp_path / "a.tar", next(blocks), next(blocks)[:-1] + b"\1", next(blocks), bytes(1024))
    refuses(tmp_path / "a.tar", "damaged, .*header at byte 512")


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
        resolve_member(tmp_path, member)


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


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_members_behind_a_lone_block_of_zeros_are_told_of(tmp_path: Path, name: str) -> None:
    members = header(tarfile.REGTYPE, 0, "1.png"), bytes(512), header(tarfile.REGTYPE, 0, "2.png")
    write_blocks(tmp_path / name, *members, bytes(1024))
    refuses(tmp_path / name, "members follow a block of zeros at byte 512")
    for end in (b"", bytes(512), bytes(1024), b"padding" * 100):
        write_blocks(tmp_path / name, *members[:2], end)
        assert not unpack(tmp_path / name, tmp_path / "unpacked", images_only).counts
