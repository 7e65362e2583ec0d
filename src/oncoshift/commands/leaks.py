"""Commands about copies of one original: group a folder of images, audit a split."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from oncoshift.commands.context import Context
    from oncoshift.copies.join import Pair
    from oncoshift.copies.leaks import Leak, SplitTile

LEAKS_FOUND = 3
"""Exit code of `leaks` if it finds any, so that a check can tell them from an error."""

_SHOWN = 20
_NAME_SHOWN = 44
_NAMED = 5
"""Largest number of unreadable files that an error names."""


def add_groups(parser: argparse.ArgumentParser) -> None:
    """Add the options of `groups`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="images, in folders nested at will")
    parser.add_argument("--out", type=Path, default=Path("groups.csv"), help="CSV path,group; default: ./groups.csv")


def add_leaks(parser: argparse.ArgumentParser) -> None:
    """Add the options of `leaks`."""
    parser.add_argument(
        "split", type=Path, metavar="SPLIT",
        help="a folder of parquet files as stage split writes, a CSV with path and split, or one folder a split",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("leaks"), metavar="DIR", help="default: ./leaks")


def groups(context: Context) -> None:
    """Join copies of one original to groups and write a CSV; an unreadable image is its own group.

    Raises:
        DataError: the folder has no readable image, or the CSV cannot be written.
    """
    from oncoshift.errors import DataError
    from oncoshift.files import writing

    folder, out = context.arguments.folder, context.arguments.out
    if not folder.is_dir():
        raise DataError(f"{folder}: {'is no folder; unpack it first' if folder.exists() else 'no such folder'}")
    if out.is_dir():
        raise DataError(f"--out {out}: is a folder; name a file")
    with writing(out.parent):
        _write_groups(folder, out)


def _write_groups(folder: Path, out: Path) -> None:
    from oncoshift.copies import join_groups
    from oncoshift.data.csv_file import write_csv
    from oncoshift.data.names import as_path_cell, as_text, is_text
    from oncoshift.data.source.folders import find_images
    from oncoshift.data.validation.groups import warn_of_large_groups
    from oncoshift.errors import DataError

    files = sorted(find_images(folder), key=lambda file: file.relative_to(folder).as_posix())
    names = [as_text(file.relative_to(folder).as_posix()) for file in files]
    if not names:
        raise DataError(f"{folder}: no image files in it; name a folder of tiles")
    _warn_of_passed_over(folder, files)
    images = _Images(files)
    pairs = _find_pairs("groups", images)
    if len(images.unreadable) == len(names):
        raise DataError(f"{folder}: none of {len(names)} images can be read: {images.summarise()}")
    odd = [f"{name}: its name is not UTF-8 and stands so in the CSV; rename the file" for name, file in
           zip(names, files, strict=True) if not is_text(str(file))]  # fmt: skip
    _warn([*images.messages(), *odd])
    # Names that sort as the positions do, so a joined group is named by its first path.
    width = len(str(len(names)))
    joined = join_groups([f"{position:0{width}}" for position in range(len(names))], pairs)
    digits = max(5, width)
    numbers = {name: f"g{number:0{digits}}" for number, name in enumerate(sorted(set(joined)), start=1)}
    found = [numbers[name] for name in joined]
    write_csv(out, ("path", "group"), zip(map(as_path_cell, names), found, strict=True))
    _warn(f"warning: {message}" for message in warn_of_large_groups(found))
    of_copies = "1 pair" if len(pairs) == 1 else f"{len(pairs)} pairs"
    print(f"{len(names)} images, {of_copies} of copies, {len(numbers)} groups: {out}")


def leaks(context: Context) -> int:
    """Find copies of one original on two sides of a split.

    Returns:
        0 if there are none, else `LEAKS_FOUND`.

    Raises:
        DataError: a tile cannot be read, and so cannot be checked, or the findings cannot be
            written.
    """
    from oncoshift.data.split_forms import read_split
    from oncoshift.files import writing

    split, out = context.arguments.split, context.arguments.out
    tiles = read_split(split)
    if split.is_dir() and not any(split.glob("*.parquet")):
        _warn_of_passed_over(split, [tile.path for tile in tiles])
    with writing(out):
        return _audit(split, tiles, out)


def _audit(split: Path, tiles: Sequence[SplitTile], out: Path) -> int:
    from oncoshift.copies.leaks import count_leaks, find_leaks
    from oncoshift.data.csv_file import write_csv
    from oncoshift.data.names import as_path_cell, as_text_cell, escape_unprintable
    from oncoshift.errors import DataError

    images = _Images([tile.path for tile in tiles])
    pairs = _find_pairs("leaks", images)
    if images.unreadable:
        raise DataError(
            f"{split}: {len(images.unreadable)} of {len(tiles)} tiles cannot be read, so the split was not checked: "
            f"{images.summarise()}"
        )
    found = find_leaks(tiles, pairs)
    rows = (
        (as_text_cell(one.split), as_path_cell(one.name), as_text_cell(other.split), as_path_cell(other.name),
         "" if leak.score is None else f"{leak.score:.3f}")
        for leak in found
        for one, other in [(tiles[leak.first], tiles[leak.second])]
    )  # fmt: skip
    write_csv(out / "leaks.csv", ("first_split", "first_path", "second_split", "second_path", "score"), rows)
    (out / "leaks.png").unlink(missing_ok=True)
    if not found:
        splits = ", ".join(sorted({escape_unprintable(tile.split) for tile in tiles}))
        print(f"{len(tiles)} tiles of {splits}: no leaks, no original has copies on two sides")
        return 0
    _draw(images, tiles, found, out / "leaks.png")
    for (one_split, other_split), count in count_leaks(tiles, pairs).items():
        splits = f"{escape_unprintable(one_split)} and {escape_unprintable(other_split)}"
        print(f"{splits}: {count} {'pair' if count == 1 else 'pairs'} of tiles with the same field")
    touched = len({position for leak in found for position in (leak.first, leak.second)})
    print(f"{touched} of {len(tiles)} tiles leak, each beside a copy: {out / 'leaks.csv'}, {out / 'leaks.png'}")
    return LEAKS_FOUND


class _Images:
    """Images by position, and why some cannot be read; safe to call from several threads."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.unreadable: dict[int, str] = {}

    def __call__(self, position: int) -> NDArray[np.uint8]:
        """Read an image; an unreadable one is a blank pixel, which is no copy of any other."""
        import numpy as np

        from oncoshift.serving.images import UnreadableImageError, decode, read_image_file

        file = self.files[position]
        try:
            return decode(read_image_file(file))
        except UnreadableImageError as error:
            self.unreadable[position] = f"{file}: {error}"
        return np.full((1, 1, 3), 255, np.uint8)

    def messages(self) -> list[str]:
        """List a message for each unreadable file, in the files' order."""
        return [self.unreadable[position] for position in sorted(self.unreadable)]

    def summarise(self) -> str:
        """Join the first few messages, and the number of the others."""
        more = len(self.unreadable) - _NAMED
        return "; ".join(self.messages()[:_NAMED]) + (f"; and {more} more" if more > 0 else "")


def _find_pairs(label: str, images: _Images) -> list[Pair]:
    from oncoshift.console import showing_phases
    from oncoshift.copies import find_pairs

    with showing_phases(label) as steps:
        return find_pairs(images, len(images.files), steps)


def _warn_of_passed_over(folder: Path, images: Sequence[Path]) -> None:
    """Warn of files in a folder that are not images, so that none is dropped silently."""
    from oncoshift.data.source.folders import is_image
    from oncoshift.data.source.passed_over import PassedOver, pass_over, summarise

    found = PassedOver()
    pass_over(folder, images, lambda path: is_image(path.name), found)
    if found.counts:
        _warn([f"passed over, not images: {summarise(found.counts)}", *found.warnings()])


def _warn(messages: Iterable[str]) -> None:
    from oncoshift.data.names import escape_unprintable

    for message in messages:
        print(escape_unprintable(message), file=sys.stderr)


def _draw(images: _Images, tiles: Sequence[SplitTile], found: Sequence[Leak], path: Path) -> None:
    from PIL import Image

    from oncoshift.copies.picture import draw_leaks, draw_side_by_side
    from oncoshift.data.names import escape_unprintable
    from oncoshift.files import atomic

    pictures = []
    for leak in found[:_SHOWN]:
        one, other = tiles[leak.first], tiles[leak.second]
        caption = escape_unprintable("    ".join(f"{tile.split}: …{tile.name[-_NAME_SHOWN:]}" for tile in (one, other)))
        pictures.append((draw_side_by_side(images(leak.first), images(leak.second)), caption))
    with atomic(path) as temporary:
        Image.fromarray(draw_leaks(pictures)).save(temporary, format="PNG")
