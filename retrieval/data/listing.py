"""What photographs a source holds and what it says about them, whatever its layout.

    celeba    CelebA's published files: img_align_celeba/ (or img_celeba/) and its lists, in one folder or in
              Anno/, Eval/ and Img/ below it. Any of the lists may be missing or cover only a part of the photos.
    lfw       one folder a person: the folder's name is the label.
    folder    any tree of photos, without labels.
    manifest  a CSV or Parquet table with a column `path`, and optionally `image_id`, `label`, `split`, a box
              `x1, y1, x2, y2` and columns named as CelebA's attributes.

`auto` takes manifest for a file, or for a folder that holds `manifest.csv` or `manifest.parquet`; celeba for a folder
with CelebA's identity or attribute list; lfw where at least two sub-folders hold photos, all one level deep; and folder
otherwise.

Hidden files (a part of the path begins with a dot) and files that are no photographs by their names are not taken; the
report counts them. Nothing here opens a photograph.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

import pyarrow.fs as pafs

from retrieval.artifacts.folder import Folder
from retrieval.data.layouts import celeba
from retrieval.data.layouts.table import MANIFEST_NAMES, manifest_in, read_manifest_table
from retrieval.data.layouts.tree import read_tree
from retrieval.data.settings import Layout
from retrieval.data.source import MAX_NOTES, Listing, Source, SourceReport, photo_files, walk


def list_source(where: str | Folder, layout: Layout = "auto") -> Source:
    """List a source: a local folder or file, or a URI that `pyarrow.fs` opens.

    Raises: ValueError if there is nothing there, no photo in it, or it does not fit the layout asked for.
    """
    root = Folder.of(where)
    kind = root.fs.get_file_info(root.path).type
    if kind == pafs.FileType.NotFound:
        raise ValueError(f"There is nothing at {root}. Name a folder of photos, or a CSV or Parquet manifest.")
    found, table, files = Listing(), "", {}
    if kind == pafs.FileType.File:
        if layout not in ("auto", "manifest"):
            raise ValueError(
                f"{root} is a file, and layout '{layout}' needs a folder. Use layout 'manifest' for a table."
            )
        uri, _, table = root.uri.rpartition("/")
        root, layout = Folder(uri or "/"), "manifest"
    else:
        files = walk(root)
        layout = _detect(files) if layout == "auto" else layout
    if layout == "celeba":
        celeba.read_celeba(root, files, found)
    elif layout == "manifest":
        read_manifest_table(root, table or manifest_in(root, files), found)
    else:
        read_tree(photo_files(files, found), found, labelled=layout == "lfw")
    return _finished(root, layout, found)


def _detect(files: Mapping[str, int]) -> Layout:
    if any(name in files for name in MANIFEST_NAMES):
        return "manifest"
    if celeba.is_celeba(files):
        return "celeba"
    folders = {posixpath.dirname(path) for path in photo_files(files, Listing())}
    return "lfw" if len(folders) >= 2 and all(folder and "/" not in folder for folder in folders) else "folder"


def _finished(root: Folder, layout: str, found: Listing) -> Source:
    photos = [found.photos[name] for name in sorted(found.photos)]
    missing = sum(photo.size < 0 for photo in photos)
    if not photos or missing == len(photos):
        named = f"{missing} photos are named and none of them exists" if missing else "there is no photograph in it"
        others = ", ".join(f"{count} {kind}" for kind, count in sorted(found.ignored.items())) or "nothing else either"
        raise ValueError(
            f"No photos at {root} (layout '{layout}'): {named} ({others}). "
            f"Expected files named .jpg, .png, .webp or the like. Check the path and --layout."
        )
    report = SourceReport(
        layout=layout,
        photos=len(photos),
        repeated=found.repeated,
        missing=missing,
        labels=len({photo.label for photo in photos} - {None}),
        unlabelled=sum(photo.label is None for photo in photos),
        without_attributes=sum(photo.attributes is None for photo in photos),
        without_box=sum(photo.box is None for photo in photos),
        ignored=dict(sorted(found.ignored.items())),
        notes=tuple(found.notes[:MAX_NOTES]),
    )
    return Source(root=root, photos=photos, report=report)
