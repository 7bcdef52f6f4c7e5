"""Photos in tars: found by headers alone, labelled by what lies beside them, read at their place; tars with flaws."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from retrieval.data import reading
from retrieval.data.layouts import webdataset
from retrieval.data.listing import Source, list_source
from retrieval.images.pixels import BadImage
from tests.support.packed import tar_of

JPEG = [bytes([65 + number]) * (900 + 300 * number) for number in range(6)]


def tar_at(folder: Path, name: str, *members: tuple[str, bytes | str]) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(tar_of(members))
    return file


def bytes_of(source: Source) -> list[bytes]:
    """Of all photos, read as a part reads them."""
    rows = [{"uri": photo.uri, "size": photo.size} for photo in source.photos]
    with reading.Ahead(source.root, rows) as ahead:
        return [ahead.read(at) for at in range(len(rows))]


def labels_of(source: Source) -> dict[str, str | None]:
    return {photo.image_id: photo.label for photo in source.photos}


def test_tars_are_told_by_what_is_there_and_each_photo_has_its_own_bytes(tmp_path: Path) -> None:
    tar_at(tmp_path, "train/b.tar", ("x.jpg", JPEG[0]), ("y.png", JPEG[1]), ("notes.csv", b"1"))
    tar_at(tmp_path, "a.tar", ("./deep/z.JPG", JPEG[2]), ("l" * 160 + ".jpg", JPEG[3]), (".hidden.jpg", JPEG[4]))
    (tmp_path / "README.md").write_text("photos")
    source = list_source(str(tmp_path))
    assert (source.report.layout, source.report.guessed, source.report.notes) == ("webdataset", True, ())
    wanted = {"a.tar/deep/z.JPG": 2, "a.tar/" + "l" * 160 + ".jpg": 3, "train/b.tar/x.jpg": 0, "train/b.tar/y.png": 1}
    assert [photo.image_id for photo in source.photos] == list(wanted)
    assert bytes_of(source) == [JPEG[number] for number in wanted.values()]
    assert source.report.ignored == {".csv": 1, ".md": 1, "hidden": 1}
    alone = list_source(str(tmp_path / "train" / "b.tar"))
    assert [photo.image_id for photo in alone.photos] == ["b.tar/x.jpg", "b.tar/y.png"]
    assert bytes_of(alone) == JPEG[:2]


def test_a_folder_with_photos_beside_a_tar_is_no_such_source_unless_one_says_so(tmp_path: Path) -> None:
    tar_at(tmp_path, "backup.tar", ("x.jpg", JPEG[0]))
    (tmp_path / "a.jpg").write_bytes(JPEG[1])
    assert list_source(str(tmp_path)).report.layout == "folder"
    report = list_source(str(tmp_path), "webdataset").report
    assert (report.photos, report.ignored) == (1, {"photos beside the tars": 1})


@pytest.mark.parametrize(
    ("beside", "label"),
    [
        ([("s.json", b'{"label": "Ann"}'), ("s.cls", b"7"), ("s.txt", b"a photo")], "Ann"),
        ([("s.json", b'{"label": 0}')], "0"),
        ([("s.json", b'{"caption": "Ann"}'), ("s.cls", b" 7\n")], "7"),
        ([("s.json", b'["label"]'), ("s.txt", b"Ann Lee\n")], "Ann Lee"),
        ([("s.json", b"not JSON"), ("s.cls", b"")], None),
        ([("s.json", b'{"label": ["Ann"]}')], None),
        ([("s.txt", b"two\nlines")], None),
        ([("s.txt", b"x" * (1 << 17))], None),
        ([("other.cls", b"7")], None),
        ([("deep/s.cls", b"7")], None),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_label_is_what_the_files_of_the_same_name_say(
    beside: Sequence[tuple[str, bytes]], label: str | None, first: bool, tmp_path: Path
) -> None:
    photo = ("s.front.jpg", JPEG[0])
    tar_at(tmp_path, "a.tar", *([photo, *beside] if first else [*beside, photo]))
    source = list_source(str(tmp_path))
    assert labels_of(source) == {"a.tar/s.front.jpg": label}
    assert (source.report.unlabelled, source.report.ignored) == (int(label is None), {})


def test_names_that_lead_out_links_and_repetitions_are_counted_and_not_taken(tmp_path: Path) -> None:
    odd = [("../out.jpg", JPEG[1]), ("/etc/x.jpg", JPEG[1]), ("a/../../b.jpg", JPEG[1]), ("link.jpg", "x.jpg")]
    tar_at(tmp_path, "a.tar", ("x.jpg", JPEG[0]), *odd, ("./x.jpg", JPEG[2]), ("a..b.jpg", JPEG[3]))
    source = list_source(str(tmp_path))
    assert [photo.image_id for photo in source.photos] == ["a.tar/a..b.jpg", "a.tar/x.jpg"]
    assert bytes_of(source) == [JPEG[3], JPEG[0]]
    assert source.report.ignored == {"name leads out of its tar": 3, "no plain file in its tar": 1}
    assert source.report.repeated == 1
    assert "a.tar holds x.jpg twice; the first is taken." in source.report.notes
    assert sum("leads out of it" in note for note in source.report.notes) == 3


def test_of_a_tar_that_was_not_copied_whole_the_photo_that_is_cut_is_refused_and_the_others_kept(
    tmp_path: Path,
) -> None:
    file = tar_at(tmp_path, "a.tar", *((f"{number}.jpg", JPEG[number]) for number in range(3)))
    place, _ = webdataset.place(list_source(str(tmp_path)).photos[2].uri)
    for kept in (place + 100, place, place - 200, place - 512):
        with file.open("r+b") as stream:
            stream.truncate(kept)
        source = list_source(str(tmp_path))
        rows = [{"uri": photo.uri, "size": photo.size} for photo in source.photos]
        assert bool(source.report.notes) == (kept != place - 512)  # between two files nothing tells
        assert all(f"ends in the middle of a file, at byte {kept}" in note for note in source.report.notes)
        with reading.Ahead(source.root, rows) as ahead:
            assert [ahead.read(0), ahead.read(1)] == JPEG[:2]
            assert len(rows) == (3 if kept >= place else 2)
            if kept >= place:
                with pytest.raises(BadImage, match=f"truncated: its tar ends after {kept - place} of its 1500 bytes"):
                    ahead.read(2)


def test_a_tar_that_is_damaged_or_none_ends_the_listing(tmp_path: Path) -> None:
    good = tar_of([(f"{number}.jpg", JPEG[number]) for number in range(3)])
    header = good.index(b"1.jpg")
    for content in (
        good[:header] + b"\xff" * 300 + good[header + 300 :],
        gzip.compress(good),
        b"",
        b"no tar" * 1000,
        good[:header] + b"\xff" * 300,
    ):
        (tmp_path / "a.tar").write_bytes(content)
        if content == good[:header] + b"\xff" * 300:  # cut within a header
            assert len(list_source(str(tmp_path)).photos) == 1
            continue
        with pytest.raises(ValueError, match=r"a\.tar is no tar, or is damaged at byte \d+ of \d+ .*Fetch it again"):
            list_source(str(tmp_path))


def test_of_a_tar_only_headers_and_labels_are_read(tmp_path: Path) -> None:
    members = [
        (f"{number}.{kind}", bytes(1 << 20) if kind == "jpg" else b"7")
        for number in range(8)
        for kind in ("jpg", "cls")
    ]
    tar_at(tmp_path, "a.tar", *members)

    def read_so_far() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    list_source(str(tmp_path))  # what is imported on the way is read once
    before = read_so_far()
    assert set(labels_of(list_source(str(tmp_path))).values()) == {"7"}
    assert read_so_far() - before < 1 << 18  # of 8 MiB


def test_photos_that_lie_close_are_read_in_one_go_and_no_more_than_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_SPAN", 4000)
    monkeypatch.setattr(reading, "_GAP", 2000)
    names = ["a", "b", "c", "d", "e"]
    between = [("video.bin", bytes(3000))]
    tar_at(tmp_path, "a.tar", ("a.jpg", JPEG[0]), ("b.jpg", JPEG[1]), *between, ("c.jpg", JPEG[2]), ("d.jpg", JPEG[3]))
    tar_at(tmp_path, "b.tar", ("e.jpg", JPEG[4]))
    source = list_source(str(tmp_path))
    rows = [{"uri": photo.uri, "size": photo.size} for photo in source.photos]
    bundles = list(reading._bundles(rows, range(len(rows)), together=False))
    assert [[names[at] for at in bundle] for bundle in bundles] == [["a", "b"], ["c", "d"], ["e"]]
    assert list(reading._bundles(rows, [0, 2, 1], together=False)) == [[0], [2], [1]]  # backwards is not
    assert bytes_of(source) == JPEG[:5]


def test_tars_in_an_object_store_are_read_like_those_on_a_disk(bucket: Folder, tmp_path: Path) -> None:
    for number in range(3):
        members = [(f"{at}.jpg", JPEG[at]) for at in range(6)]
        tar_at(tmp_path, f"{number}.tar", *members, ("5.json", b'{"label": "Ann"}'))
        bucket.write_bytes(f"{number}.tar", (tmp_path / f"{number}.tar").read_bytes())
    here, there = list_source(str(tmp_path)), list_source(bucket)
    assert here.photos == there.photos and there.report.labels == 1
    assert bytes_of(there) == bytes_of(here) == JPEG * 3
    bucket.write_bytes("2.tar", (tmp_path / "2.tar").read_bytes()[:9000])  # while the job is at work
    rows = [{"uri": photo.uri, "size": photo.size} for photo in there.photos]
    with reading.Ahead(there.root, rows) as ahead, pytest.raises(BadImage, match="truncated"):
        ahead.read(len(rows) - 1)


@pytest.mark.parametrize("uri", ["tar://x/a.tar", "tar://5", "tar://5/", "tar:///a.tar", "a.tar"])
def test_what_names_no_place_in_a_tar_is_said(uri: str) -> None:
    with pytest.raises(ValueError, match="is no photo in a tar. Expected tar://OFFSET/PATH"):
        webdataset.place(uri)


@pytest.mark.timeout(20, method="signal")
def test_a_tar_that_leads_back_does_not_go_round_for_ever(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x.bin")
    info.size = -tarfile.BLOCKSIZE  # behind it comes itself
    back = bytes(info.tobuf(tarfile.GNU_FORMAT))
    (tmp_path / "a.tar").write_bytes(tarfile.TarInfo("a.bin").tobuf() + back + bytes(4096))
    with pytest.raises(ValueError, match="is no tar, or is damaged"):
        list_source(str(tmp_path))
