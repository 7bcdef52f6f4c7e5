"""What photographs a source holds and what it says about them, whatever its layout.

    celeba    CelebA's published files: img_align_celeba/ (or img_celeba/) and its lists, in one folder or in
              Anno/, Eval/ and Img/ below it. Any of the lists may be missing or cover only a part of the photos.
    lfw       one folder a person, or a place: the folder's name is the label.
    folder    any tree of photos, without labels.
    manifest  a CSV or Parquet table with a column `path`, and optionally `image_id`, `label`, `split`, a box
              `x1, y1, x2, y2` and columns named as CelebA's attributes.
    webdataset  tars with NAME.jpg beside NAME.json, NAME.cls or NAME.txt.
    parquet   Parquet files with the photos' bytes in a column.

`auto` takes webdataset for a tar, parquet for a Parquet file with photos in it and no column `path`, manifest for any
other file; and for a folder the first layout of LAYOUTS that its files fit: manifest where it holds `manifest.csv` or
`manifest.parquet`; celeba with CelebA's identity or attribute list; webdataset and parquet where there are such files
and no photos; lfw where the names say so, Ann_Lee/Ann_Lee_0001.jpg; and folder otherwise: other folders are labels only
for whoever asks for lfw.

Hidden files (a part of the path begins with a dot) and files that are no photographs by their names are not taken; the
report counts them. Nothing here opens a photograph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow.fs as pafs

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.patience import patiently
from retrieval.data.layouts import celeba, image_table, table, tree, webdataset
from retrieval.data.listed import Counted, Photos, sort_files, sort_photos
from retrieval.data.settings import Layout
from retrieval.data.source import MAX_NOTES, Listing, Photo, SourceReport, is_utf8, photo_files, walk


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A listed source: its photos sorted by image_id, each image_id once."""

    root: Folder
    photos: Photos
    report: SourceReport


@dataclass(frozen=True, slots=True)
class Reader:
    """A layout: whether a folder's files (relative path -> bytes, sorted) fit it, and how photos are read out of them;
    what is odd is noted in a listing."""

    fits: Callable[[Mapping[str, int]], bool]
    read: Callable[[Folder, Mapping[str, int], Listing], Iterator[Photo]]


LAYOUTS: dict[str, Reader] = {
    "manifest": Reader(table.fits, table.read),
    "celeba": Reader(celeba.fits, celeba.read),
    "webdataset": Reader(webdataset.fits, webdataset.read),
    "parquet": Reader(image_table.fits, image_table.read),
    "lfw": Reader(tree.fits_labels, tree.read_labelled),
    "folder": Reader(lambda _: True, tree.read),
}
"""By the names in `settings.Layout`, in the order in which `auto` asks them."""

FILES: dict[str, Callable[[Folder, str, Listing], Iterator[Photo]]] = {
    "manifest": table.read_file,
    "webdataset": webdataset.read_file,
    "parquet": image_table.read_file,
}
"""How a source is read that is one file."""


def list_source(where: str | Folder, layout: Layout = "auto") -> Source:
    """List a source: a local folder or file, or a URI that `pyarrow.fs` opens.

    Raises: ValueError if there is nothing there, no photo in it, or it does not fit the layout asked for.
    """
    root, found = Folder.of(where), Listing()
    kind = patiently(lambda: root.fs.get_file_info(root.path).type, f"looking at {root}")
    if kind == pafs.FileType.NotFound:
        raise ValueError(f"There is nothing at {root}. Name a folder of photos, or a CSV or Parquet manifest.")
    if kind == pafs.FileType.File:
        if layout not in ("auto", *FILES):
            raise ValueError(
                f"{root} is a file, and layout '{layout}' needs a folder. Use layout 'manifest' for a table."
            )
        root, file = root.parent, root.name
        name = _kind_of_file(root, file) if layout == "auto" else layout
        photos, counted = sort_photos(FILES[name](root, file, found), found)
        return _finished(root, name, found, photos, counted, guessed=layout == "auto")
    files = sort_files(_text_only(walk(root), found))
    name = next(name for name, reader in LAYOUTS.items() if reader.fits(files)) if layout == "auto" else layout
    photos, counted = sort_photos(LAYOUTS[name].read(root, files, found), found)
    return _finished(root, name, found, photos, counted, guessed=layout == "auto")


def _kind_of_file(root: Folder, file: str) -> str:
    if file.endswith(".tar"):
        return "webdataset"
    return "parquet" if file.endswith(".parquet") and image_table.holds_photos(root, file) else "manifest"


def _text_only(files: Iterator[tuple[str, int]], found: Listing) -> Iterator[tuple[str, int]]:
    """Without names that no table can hold, which are counted as files of the others are."""
    for path, size in files:
        if is_utf8(path):
            yield path, size
        else:
            assert not list(photo_files([(path, size)], found))


def _finished(root: Folder, layout: str, found: Listing, photos: Photos, counted: Counted, *, guessed: bool) -> Source:
    missing = counted.missing
    if not photos or missing == len(photos):
        named = f"{missing} photos are named and none of them exists" if missing else "there is no photograph in it"
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(found.ignored.items())) or "nothing else either"
        raise ValueError(
            f"No photos at {root} (layout '{layout}'): {named} ({others}). "
            f"Expected files named .jpg, .png, .webp or the like. Check the path and --layout."
        )
    report = SourceReport(
        layout=layout,
        guessed=guessed,
        photos=len(photos),
        repeated=found.repeated,
        **dataclasses.asdict(counted),
        ignored=dict(sorted(found.ignored.items())),
        notes=tuple(found.notes[:MAX_NOTES]),
    )
    return Source(root=root, photos=photos, report=report)
