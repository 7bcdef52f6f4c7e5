"""CelebA's published files: its photo folders and its lists, read as they are and as they are often damaged.

A count line that lies, missing or repeated rows, stray spaces and rows that cannot be read are noted, not fatal.
"""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator, Mapping, Sequence

from retrieval.artifacts.folder import Folder
from retrieval.data.source import Listing, Photo, is_photo, photo_files
from retrieval.images.settings import Box

ATTRIBUTES: tuple[str, ...] = (
    *("5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose"),
    *("Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses"),
    *("Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache"),
    *("Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks"),
    *("Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick"),
    *("Wearing_Necklace", "Wearing_Necktie", "Young"),
)
"""CelebA's 40 attributes in the order of its list; 1 yes, -1 no."""


LISTS = {
    "identity": "identity_CelebA.txt",
    "attributes": "list_attr_celeba.txt",
    "split": "list_eval_partition.txt",
    "landmarks": "list_landmarks_align_celeba.txt",
    "boxes": "list_bbox_celeba.txt",
}

_IMAGE_FOLDERS = ("img_align_celeba", "img_celeba")

_PARTITIONS = {"0": "train", "1": "val", "2": "test"}


def fits(files: Mapping[str, int]) -> bool:
    """Whether one of the two lists that make a CelebA set is there."""
    return any(posixpath.basename(path) in (LISTS["identity"], LISTS["attributes"]) for path in files)


def read(root: Folder, files: Mapping[str, int], found: Listing) -> Iterator[Photo]:
    """The photos of CelebA's files, wherever below `root` they lie. Its lists are held: they name 202,599 photos.

    Args: files: all files below root, relative path -> bytes, sorted.
    """
    lists: dict[str, str] = {}
    for path in files:
        if posixpath.basename(path) in LISTS.values():
            lists.setdefault(posixpath.basename(path), path)
    here = {kind: lists[name] for kind, name in LISTS.items() if name in lists}
    photos, folder = _image_folder(dict(photo_files(files.items(), found)), found)
    labels = _read_list(root, here.get("identity"), 1, found)
    parts = _read_list(root, here.get("split"), 1, found)
    attributes = _read_attributes(root, here.get("attributes"), found)
    boxes = _read_boxes(root, here, folder, found)
    listed = {*labels, *parts, *attributes} - {posixpath.basename(path) for path in photos}
    for path in [*photos, *(posixpath.join(folder, name) for name in sorted(listed))]:
        name = posixpath.basename(path)
        part = parts.get(name, [""])[0]
        yield Photo(
            image_id=path,
            uri=path,
            size=photos.get(path, -1),
            label=labels.get(name, [None])[0],
            split=_PARTITIONS.get(part, part or None),
            attributes=attributes.get(name),
            box=boxes.get(name),
        )
    found.notes += [f"There is no {name}." for kind, name in LISTS.items() if kind not in here and kind != "boxes"]


def _image_folder(photos: Mapping[str, int], found: Listing) -> tuple[dict[str, int], str]:
    """The photos in CelebA's image folder (the aligned one, if both are there), and that folder; else all photos."""
    for wanted in _IMAGE_FOLDERS:
        inside = {path: size for path, size in photos.items() if wanted in path.split("/")[:-1]}
        if inside:
            if len(inside) < len(photos):
                found.ignored[f"photos outside {wanted}"] += len(photos) - len(inside)
            return inside, posixpath.dirname(min(inside))
    return dict(photos), posixpath.dirname(min(photos, default=""))


def _read_list(root: Folder, path: str | None, width: int, found: Listing) -> dict[str, list[str]]:
    """Rows `name value*width` of one of CelebA's lists, by name; count and header lines are recognised and skipped."""
    return {} if path is None else _parse_list(path, _lines(root, path), width, found)


def _lines(root: Folder, path: str) -> list[str]:
    return [line for line in root.read_bytes(path).decode("utf-8-sig", errors="replace").splitlines() if line.strip()]


def _parse_list(path: str, lines: Sequence[str], width: int, found: Listing) -> dict[str, list[str]]:
    name, rows, unreadable = posixpath.basename(path), {}, []
    count = int(lines[0]) if lines and lines[0].strip().isdigit() else None
    body = lines[0 if count is None else 1 :]
    if width > 1 and body and not is_photo(body[0].split()[0]):
        body = body[1:]  # the header
    for line in body:
        key, *values = line.strip().rsplit(None, width)  # from the right, since a name may have spaces
        if len(values) != width or not is_photo(key):
            unreadable.append(line.strip())
        elif key not in rows:
            rows[key] = values
        else:
            found.repeated += 1
            if rows[key] != values:
                found.notes.append(f"{name} lists {key} twice with different values; the first is kept.")
    if count is not None and count != len(rows):
        found.notes.append(f"{name} says that it holds {count} rows; it holds {len(rows)} different ones.")
    if unreadable:
        found.notes.append(
            f"{name} has {len(unreadable)} lines that cannot be read; the first is {unreadable[0][:80]!r}."
        )
    return rows


def _read_attributes(root: Folder, path: str | None, found: Listing) -> dict[str, tuple[int, ...]]:
    if path is None:
        return {}
    lines = _lines(root, path)
    header = next((line.split() for line in lines[:2] if set(line.split()) & set(ATTRIBUTES)), list(ATTRIBUTES))
    if lacking := sorted(set(ATTRIBUTES) - set(header)):
        raise ValueError(
            f"{path} lacks the attributes {', '.join(lacking)}. Expected CelebA's 40; without the list the photos are "
            f"taken with no attributes."
        )
    order = [header.index(name) for name in ATTRIBUTES]
    rows, odd = {}, 0
    for name, values in _parse_list(path, lines, len(header), found).items():
        if set(values) <= {"1", "-1", "0", "+1"}:
            rows[name] = tuple(1 if values[column] in ("1", "+1") else -1 for column in order)
        else:
            odd += 1
    if odd:
        name = posixpath.basename(path)
        found.notes.append(f"{name} has {odd} rows with other values than 1, 0 and -1; they are left out.")
    return rows


def _read_boxes(root: Folder, here: Mapping[str, str], folder: str, found: Listing) -> dict[str, Box]:
    """Face boxes: of the photos in the wild from their own list, of the aligned ones from the five landmarks."""
    if posixpath.basename(folder) == "img_celeba":
        corners = {name: _numbers(values) for name, values in _read_list(root, here.get("boxes"), 4, found).items()}
        return {name: (x, y, x + w, y + h) for name, (x, y, w, h) in corners.items() if w > 0 and h > 0}
    points = {name: _numbers(values) for name, values in _read_list(root, here.get("landmarks"), 10, found).items()}
    return {name: box_of_landmarks(xy) for name, xy in points.items() if all(map(math.isfinite, xy))}


def _numbers(values: Sequence[str]) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except ValueError:
        return (math.nan,) * len(values)


def box_of_landmarks(points: Sequence[float]) -> Box:
    """A square about as large as a Haar face box, from x, y of left eye, right eye, nose, and the mouth's two corners.

    Its centre is half-way between eyes and mouth; its side is 2.4 times the greater of the distances eye to eye and
    eyes to mouth, so that a turned head does not shrink it.
    """
    left_x, left_y, right_x, right_y, _, _, m1_x, m1_y, m2_x, m2_y = points
    eyes = ((left_x + right_x) / 2, (left_y + right_y) / 2)
    mouth = ((m1_x + m2_x) / 2, (m1_y + m2_y) / 2)
    x, y = (eyes[0] + mouth[0]) / 2, (eyes[1] + mouth[1]) / 2
    half = 1.2 * max(math.hypot(right_x - left_x, right_y - left_y), math.hypot(mouth[0] - eyes[0], mouth[1] - eyes[1]))
    return (x - half, y - half, x + half, y + half)
