"""The drawn demo set: CelebA's formats, the same bytes every time, faces Haar finds, attributes that show."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from retrieval.data.demo import faces
from retrieval.data.demo.attributes import attributes_of
from retrieval.data.demo.faces import IMAGE_FOLDER, _plan, draw_collection, draw_images, write_lists
from retrieval.data.demo.people import sample_person, sample_shot
from retrieval.data.demo.portrait import landmarks, render
from retrieval.data.demo.settings import DemoConfig
from retrieval.data.layouts.celeba import ATTRIBUTES
from retrieval.data.listing import list_source
from retrieval.images.pixels import decode, encode_jpeg

NUM_IDENTITIES, IMAGES_PER_IDENTITY = 30, 8
LISTS = ["identity_CelebA.txt", "list_attr_celeba.txt", "list_eval_partition.txt", "list_landmarks_align_celeba.txt"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    draw_collection(out, num_identities=NUM_IDENTITIES, images_per_identity=IMAGES_PER_IDENTITY, seed=5)
    return out


def _images(folder: Path) -> list[np.ndarray]:
    found = [cv2.imread(str(path)) for path in sorted((folder / IMAGE_FOLDER).iterdir())]
    return [image for image in found if image is not None]


def _points(folder: Path) -> np.ndarray:
    """(N, 5, 2) int: eyes, nose, mouth corners."""
    lines = (folder / "list_landmarks_align_celeba.txt").read_text().splitlines()[2:]
    return np.array([line.split()[1:] for line in lines], int).reshape(-1, 5, 2)


def test_lists_are_celebas(drawn: Path) -> None:
    num_images = NUM_IDENTITIES * IMAGES_PER_IDENTITY
    names = [f"{number:06d}.jpg" for number in range(1, num_images + 1)]
    assert [path.name for path in sorted((drawn / IMAGE_FOLDER).iterdir())] == names
    lines = {name: (drawn / name).read_text().splitlines() for name in LISTS}
    for name in ("list_attr_celeba.txt", "list_landmarks_align_celeba.txt"):
        assert lines[name][0] == str(num_images)
        assert lines[name][1].endswith(" ")
        lines[name] = lines[name][2:]
    for rows in lines.values():
        assert [row.split()[0] for row in rows] == names
    assert all(len(row) == len(lines["list_attr_celeba.txt"][0]) for row in lines["list_attr_celeba.txt"])
    assert {value for row in lines["list_attr_celeba.txt"] for value in row.split()[1:]} == {"-1", "1"}
    labels = [int(row.split()[1]) for row in lines["identity_CelebA.txt"]]
    assert sorted(set(labels)) == list(range(1, NUM_IDENTITIES + 1))
    splits = {(label, row.split()[1]) for label, row in zip(labels, lines["list_eval_partition.txt"], strict=True)}
    assert len(splits) == NUM_IDENTITIES
    assert {split for _, split in splits} == {"0", "1", "2"}


def test_the_celeba_reader_reads_it(drawn: Path) -> None:
    source = list_source(str(drawn))
    photos = list(source.photos)
    person = sample_person(5, 3)
    shown = attributes_of(person, sample_shot(5, 3, 2, person))
    photo = next(photo for photo in photos if photo.image_id.endswith(f"{3 * IMAGES_PER_IDENTITY + 3:06d}.jpg"))
    assert len(photos) == NUM_IDENTITIES * IMAGES_PER_IDENTITY
    assert photo.label == "4"
    assert photo.attributes == tuple(1 if shown.get(name) else -1 for name in ATTRIBUTES)


def test_photos_do_not_depend_on_how_many_are_drawn_or_in_which_order(tmp_path: Path) -> None:
    few = DemoConfig(num_identities=2, images_per_identity=3, size=(89, 109))
    many = dataclasses.replace(few, num_identities=4)
    draw_collection(tmp_path / "few", num_identities=2, images_per_identity=3, size=(89, 109))
    draw_images(tmp_path / "many", 5, 12, many)
    draw_images(tmp_path / "many", 0, 6, many)
    write_lists(tmp_path / "many", many)
    for path in (tmp_path / "few" / IMAGE_FOLDER).iterdir():
        assert path.read_bytes() == (tmp_path / "many" / IMAGE_FOLDER / path.name).read_bytes()
    assert len(list((tmp_path / "many" / IMAGE_FOLDER).iterdir())) == 12
    few_rows = (tmp_path / "few" / "list_attr_celeba.txt").read_text().splitlines()[2:]
    assert few_rows == (tmp_path / "many" / "list_attr_celeba.txt").read_text().splitlines()[2:8]


def test_flaws_are_what_real_sets_have(tmp_path: Path) -> None:
    config = DemoConfig(num_identities=10, images_per_identity=4, size=(89, 109), flaws=True)
    draw_images(tmp_path, 0, config.num_images, config)
    write_lists(tmp_path, config)
    files = {int(path.stem): path.read_bytes() for path in (tmp_path / IMAGE_FOLDER).iterdir()}
    labels = [int(line.split()[1]) for line in (tmp_path / "identity_CelebA.txt").read_text().splitlines()]
    assert set(range(1, 41)) - set(files) == {31}
    assert [number for number, data in files.items() if not data.endswith(b"\xff\xd9")] == [8]
    assert files[23] == files[22]
    assert labels[22] == labels[21]
    assert len(set(files.values())) == len(files) - 1
    assert [label for label in set(labels) if labels.count(label) == 1] == [labels[38]]
    attributes = (tmp_path / "list_attr_celeba.txt").read_text().splitlines()[2:]
    assert set(attributes[15].split()[1:]) == {"-1"}


def test_a_range_outside_the_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of 6"):
        draw_images(tmp_path, 4, 7, DemoConfig(num_identities=2, images_per_identity=3))


def test_seed_and_size_are_honoured_and_the_lists_follow_the_photos(tmp_path: Path) -> None:
    for seed in (1, 2):
        draw_collection(tmp_path / str(seed), num_identities=2, images_per_identity=2, seed=seed, size=(60, 80))
    names = [f"{number:06d}.jpg" for number in range(1, 5)]
    pictures = [[(tmp_path / seed / IMAGE_FOLDER / name).read_bytes() for name in names] for seed in ("1", "2")]
    assert len({*pictures[0], *pictures[1]}) == 8
    for number, data in enumerate(pictures[1]):
        person = sample_person(2, number // 2)
        shot = sample_shot(2, number // 2, number % 2, person)
        assert decode(data)[0].shape == (80, 60, 3)
        assert data == encode_jpeg(render(person, shot, (60, 80)), shot.quality)
        points = [round(value) for point in landmarks(person, shot, (60, 80)) for value in point]
        assert _points(tmp_path / "2")[number].reshape(-1).tolist() == points


def test_of_ten_people_eight_train_one_validates_and_one_is_tested(tmp_path: Path) -> None:
    write_lists(tmp_path, DemoConfig(num_identities=20, images_per_identity=1))
    rows = (tmp_path / "list_eval_partition.txt").read_text().splitlines()
    assert [row.split()[1] for row in rows] == ["0"] * 7 + ["1", "2", "0"] + ["0"] * 7 + ["1", "2", "0"]


def test_lists_have_celeba_s_spacing_and_line_ends(tmp_path: Path) -> None:
    write_lists(tmp_path, DemoConfig(num_identities=1, images_per_identity=2))
    for name in LISTS:
        data = (tmp_path / name).read_bytes()
        assert data.endswith(b"\r\n") and data.count(b"\n") == data.count(b"\r\n")
    assert (tmp_path / "identity_CelebA.txt").read_bytes() == b"000001.jpg 1\r\n000002.jpg 1\r\n"
    row = (tmp_path / "list_attr_celeba.txt").read_text().splitlines()[2]
    assert len(row) == len("000001.jpg") + 40 * 3
    header = (tmp_path / "list_landmarks_align_celeba.txt").read_text().splitlines()[1]
    assert header.split()[:4] == ["lefteye_x", "lefteye_y", "righteye_x", "righteye_y"]


def test_flaws_come_again_after_200_photos_and_only_where_they_were_asked_for() -> None:
    config = DemoConfig(num_identities=60, images_per_identity=8, flaws=True)
    flaws = {number: flaw for number in range(480) if (flaw := _plan(number, config).flaw)}
    kinds = {7: "truncated", 15: "no-face", 22: "duplicate", 30: "missing", 38: "stranger"}
    assert flaws == {after + at: flaw for after in (0, 200, 400) for at, flaw in kinds.items()}
    whole = dataclasses.replace(config, flaws=False)
    assert not any(_plan(number, whole).flaw for number in range(480))


def test_a_copy_is_of_the_same_person_s_photo_beside_it_and_strangers_are_all_different() -> None:
    config = DemoConfig(num_identities=300, images_per_identity=2, flaws=True)
    copy, original = _plan(22, config), _plan(23, config)  # the first of its person: a copy of the next
    assert (copy.person, copy.shot, copy.label) == (original.person, original.shot, original.label)
    strangers = [_plan(number, config) for number in (38, 238, 438)]
    assert len({plan.label for plan in strangers}) == 3 and min(plan.label for plan in strangers) > 300
    assert strangers[0].person != strangers[1].person


def test_a_range_is_drawn_from_its_first_photo_to_the_last_but_one(tmp_path: Path) -> None:
    config = DemoConfig(num_identities=2, images_per_identity=3, size=(48, 60))
    draw_images(tmp_path, 2, 4, config)
    assert sorted(path.name for path in (tmp_path / IMAGE_FOLDER).iterdir()) == ["000003.jpg", "000004.jpg"]
    draw_images(tmp_path, 6, 6, config)
    for start, stop in ((-1, 2), (3, 2), (0, 7)):
        with pytest.raises(ValueError, match=rf"Cannot draw photos {start}..{stop} of 6"):
            draw_images(tmp_path, start, stop, config)


def test_the_lists_come_last_so_that_their_presence_means_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> bytes:
        raise OSError("killed")

    monkeypatch.setattr(faces, "encode_jpeg", fails)
    with pytest.raises(OSError, match="killed"):
        draw_collection(tmp_path, num_identities=1, images_per_identity=1)
    assert not list(tmp_path.glob("*.txt"))


# Last, since they take seconds: what Haar finds in the drawn faces, and what can be learned from them.


def test_haar_finds_one_face_where_it_was_drawn(drawn: Path) -> None:
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    num_right = num_single = 0
    images = _images(drawn)
    for image, points in zip(images, _points(drawn), strict=True):
        boxes = cascade.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), scaleFactor=1.1, minNeighbors=3)
        (left_x, left_y), (right_x, _), _, (_, mouth_y), _ = points
        num_single += len(boxes) == 1
        num_right += any(
            x < left_x < right_x < x + w and y < left_y < y + 0.6 * h and y + 0.5 * h < mouth_y < y + 1.05 * h
            for x, y, w, h in boxes
        )
    assert len(images) == NUM_IDENTITIES * IMAGES_PER_IDENTITY
    assert num_right >= 0.97 * len(images)
    assert num_single >= 0.95 * len(images)


def test_raw_pixels_do_not_give_identity_away_but_training_can_learn_it(drawn: Path) -> None:
    """Nearest neighbour is poor on pixels, and much better on unseen people after a linear map learned from others."""
    found = []
    for image, points in zip(_images(drawn), _points(drawn), strict=True):
        x, y = points.mean(axis=0)
        side = 1.3 * (points[3:, 1].mean() - points[:2, 1].mean())
        at = np.array([[48 / side / 2, 0, 24 - 24 / side * x], [0, 48 / side / 2, 24 - 24 / side * y]])
        found.append(cv2.warpAffine(image, at, (48, 48), flags=cv2.INTER_AREA))
    pixels = np.stack(found).reshape(len(found), -1).astype(np.float64) / 255
    labels = np.repeat(np.arange(NUM_IDENTITIES), IMAGES_PER_IDENTITY)
    seen = labels < 20
    raw = _recall_at_1(pixels[~seen], labels[~seen])

    centred = pixels - pixels[seen].mean(axis=0)
    axes = np.linalg.svd(centred[seen], full_matrices=False)[2][:60]
    within = centred @ axes.T
    means = np.stack([within[labels == label].mean(axis=0) for label in range(20)])
    spread = within[seen] - means[labels[seen]]
    whiten = np.linalg.cholesky(np.linalg.inv(spread.T @ spread / len(spread) + 1e-3 * np.eye(60)))
    learned = _recall_at_1(within[~seen] @ whiten, labels[~seen])
    assert 0.15 < raw < 0.75
    assert learned > raw + 0.15


def _recall_at_1(vectors: np.ndarray, labels: np.ndarray) -> float:
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    return float(np.mean(labels[distances.argmin(axis=1)] == labels))
