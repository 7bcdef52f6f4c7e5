"""Queries to a model of places over real HTTP: photos of any shape and parts of them, embedded as the gallery is."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from ray_jobs import embed
from retrieval.artifacts import hashing, published
from retrieval.artifacts.folder import Folder
from retrieval.artifacts.index import IDS
from retrieval.images import pixels
from retrieval.images.settings import PrepareConfig
from retrieval.models import network
from retrieval.models.bundle import build, save_bundle
from retrieval.models.embedder import Embedder
from retrieval.models.settings import ModelConfig
from retrieval.search.settings import IndexConfig
from serve.schemas import Answer, ErrorBody, Info
from tests.support.browser import open_page
from tests.support.service import Service, running_service
from tests.support.workspace import Workspace, make_collection, make_index, stored_vectors

# Shapes of photos (width, height), by place: wide, tall, square, smaller than any limit, and longer than both.
SHAPES = {
    "a": ((400, 300), (300, 400), (300, 300)),
    "b": ((90, 70), (700, 120), (333, 217)),
    "c": ((500, 499), (60, 150)),
}
LYING = "c/1.jpg"  # stored on its side, with an EXIF orientation that stands it up
# The network takes fewer pixels than are stored, as in the demo's preset: both are limits that a query goes through.
PREPARE = PrepareConfig(crop="fit", size=256, quality=92)
CONFIG = ModelConfig(
    backbone="resnet18",
    cut="layer1",
    pooling="gem",
    head="none",
    image_size=160,
    keep_aspect=True,
    scales=(1.0, 0.7071, 0.5),
)


def draw(path: Path, width: int, height: int, seed: int) -> None:
    """Coloured patches of a few pixels: something to see at every scale."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    patches.resize((width, height), Image.Resampling.NEAREST).save(path, "JPEG", quality=97)


def lay_down(path: Path) -> None:
    image, exif = Image.open(path).rotate(90, expand=True), Image.Exif()
    exif[0x0112] = 6
    image.save(path, "JPEG", quality=97, exif=exif)


def save_whitened(bundle: Folder, photos: list[Path]) -> None:
    """Random weights; whitened about the photos' own mean, so that their embeddings point different ways."""
    net = build(CONFIG, preparation=hashing.plain(PREPARE), seed=1)
    jpegs = [pixels.encode_jpeg(pixels.decode(path.read_bytes())[0]) for path in photos]
    mean = torch.from_numpy(Embedder(net, device="cpu", precision="fp32").embed_jpegs(jpegs).mean(axis=0))
    projection = torch.from_numpy(np.random.default_rng(2).normal(size=(24, net.base_dim))).float()
    save_bundle(network.with_whitening(net, projection, mean, "pca"), bundle)


@pytest.fixture(scope="module")
def made(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("places")
    photos = {f"{place}/{n}.jpg": size for place, sizes in SHAPES.items() for n, size in enumerate(sizes)}
    for seed, (name, (width, height)) in enumerate(photos.items()):
        draw(root / "photos" / name, width, height, seed)
    lay_down(root / "photos" / LYING)
    folder = Folder.of(root / "workspace")
    collection, bundle, embeddings, index = (
        folder / f"{kind}/test" for kind in ("collection", "model", "embeddings", "index")
    )
    make_collection(collection, root / "photos", PREPARE, part_size=4, layout="lfw")
    save_whitened(bundle, [root / "photos" / name for name in photos])
    embed.main(
        embed.EmbedConfig(
            collection=collection.uri, model=bundle.uri, out=embeddings.uri, precision="fp32", num_workers=1
        )
    )
    make_index(index, embeddings, IndexConfig(num_shards=1), collection)
    published.publish(folder, collection=collection, model=bundle, index=index)
    labels = {name: name.partition("/")[0] for name in photos}
    return Workspace(folder=folder, photos={name: root / "photos" / name for name in photos}, labels=labels)


@pytest.fixture(scope="module")
def service(made: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("unused"), made, expand=2) as running:
        yield running


def search(service: Service, name: str, query: str) -> httpx.Response:
    photo = service.made.photos[name].read_bytes()
    return service.client.post(f"/search?{query}", content=photo, headers={"Content-Type": "image/jpeg"})


def scores_of(answer: Answer, made: Workspace) -> np.ndarray:
    """The query's scores by row of the index: what its embedding is, seen from every stored one."""
    found = {result.image_id: result.score for result in answer.results}
    return np.array([found[name] for name in (made.folder / "index/test").read_table(IDS)["image_id"].to_pylist()])


def test_a_photo_of_any_shape_is_embedded_as_the_embed_job_does(service: Service, made: Workspace) -> None:
    stored = stored_vectors(made.folder)
    ids = (made.folder / "index/test").read_table(IDS)["image_id"].to_pylist()
    assert len(ids) == len(made.photos) == 8
    gram = stored @ stored.T
    assert gram[~np.eye(len(gram), dtype=bool)].max() < 0.99, "photos that all look alike would prove nothing"
    for row, name in enumerate(ids):
        answer = Answer.model_validate(search(service, name, "k=12&expand=0").json())
        scores = scores_of(answer, made)
        assert scores[row] >= 0.9999, f"{name}: cosine {scores[row]} with what the embed job stored"
        assert np.abs(scores - gram[row]).max() < 1e-4
        width, height = pixels.upright_size(made.photos[name].read_bytes())
        assert answer.query.box == (0, 0, width, height)
        assert (answer.query.width, answer.query.height) == (width, height)


def test_the_page_says_that_places_are_searched(service: Service, tmp_path: Path) -> None:
    index = service.client.get("/info").json()["index"]
    about = "document.getElementById('about').textContent"
    with open_page(f"http://127.0.0.1:{service.port}/", tmp_path / "profile") as page:
        page.wait_for(f"{about} !== ''")
        assert page.run(about) == f"{index['num_images']} photos of {index['num_identities']} places"


def test_a_region_is_drawn_moved_by_keys_and_taken_away(service: Service, made: Workspace, tmp_path: Path) -> None:
    """In the page, on a photo of 400 x 300 pixels; the answer is that of the same box asked for by hand."""
    shown = "[...document.querySelectorAll('#results .card[data-id]')].map((one) => one.dataset.id)"
    box = "new URLSearchParams(location.hash.split('?')[1]).get('box')"
    done = "document.getElementById('answers').getAttribute('aria-busy') === 'false'"
    with open_page(f"http://127.0.0.1:{service.port}/", tmp_path / "profile") as page:
        page.wait_for("!!document.body?.classList.contains('ready')")
        page.choose_file("#file", made.photos["a/0.jpg"])
        page.wait_for(f"{done} && {shown}.length > 0")
        left, top, width = page.run(
            "(r => [r.left, r.top, r.width])(document.getElementById('stage').getBoundingClientRect())"
        )
        scale = width / 400
        page.drag((left + 100 * scale, top + 40 * scale), (left + 340 * scale, top + 200 * scale))
        page.wait_for(f"{box} !== null && {done}")
        drawn = [int(edge) for edge in page.run(box).split(",")]
        assert np.abs(np.array(drawn) - (100, 40, 340, 200)).max() <= 2
        answer = search(service, "a/0.jpg", f"k=9&box={page.run(box)}").json()
        assert page.run(shown) == [one["image_id"] for one in answer["results"]][: len(page.run(shown))]
        assert page.barriers() == []
        page.run("document.querySelector('.region').focus()")
        page.press("ArrowRight")
        page.wait_for(f"{box} !== '{','.join(map(str, drawn))}' && {done}")
        assert page.run(box).split(",")[0] == str(drawn[0] + 8)  # a step is 2 % of the photo
        page.press("Delete")
        page.wait_for(f"{box} === null && {done} && !document.querySelector('.region')")
        assert page.complaints == []


def test_the_points_that_match_are_drawn_between_the_photos(service: Service, made: Workspace, tmp_path: Path) -> None:
    with open_page(f"http://127.0.0.1:{service.port}/#/?rerank=20", tmp_path / "profile") as page:
        page.wait_for("!!document.body?.classList.contains('ready')")
        page.choose_file("#file", made.photos["a/0.jpg"])
        first = "document.querySelector('#results .card[data-id]')"
        page.wait_for(f"/\\d+ points/.test({first}?.textContent)")
        assert page.run(f"{first}.dataset.id") == "a/0.jpg"
        page.run(f"{first}.querySelector('.card-main').click()")
        page.wait_for("document.querySelectorAll('dialog .matches line').length > 5")
        # The photo is compared with itself: each line joins the same place of both pictures.
        ends = page.run(
            "[...document.querySelectorAll('dialog .matches line')].map((one) => [one.y1, one.y2]"
            ".map((end) => end.baseVal.value))"
        )
        assert np.median(np.abs(np.diff(ends))) < 3
        assert page.barriers() == [] and page.complaints == []


@pytest.mark.parametrize(
    ("name", "box"),
    [
        ("a/0.jpg", (100, 40, 340, 200)),
        ("a/1.jpg", (10, 20, 110, 390)),
        ("b/0.jpg", (5, 5, 60, 65)),
        ("b/1.jpg", (0, 0, 700, 120)),
        (LYING, (0, 30, 60, 130)),
    ],
)
def test_a_box_is_cut_at_full_size_and_shrunk_as_the_whole_photo_is(
    service: Service, made: Workspace, name: str, box: tuple[int, int, int, int]
) -> None:
    text = ",".join(map(str, box))
    answer = Answer.model_validate(search(service, name, f"k=12&expand=0&crop=true&box={text}").json())
    assert answer.query.box == box
    x1, y1, x2, y2 = box
    whole = pixels.decode(made.photos[name].read_bytes())[0]
    # The published rule: imsize * max(crop) / max(full), never enlarged.
    long_side = CONFIG.image_size * max(x2 - x1, y2 - y1) / max(whole.shape[:2])
    part = whole[y1:y2, x1:x2]
    part = pixels.resize(np.ascontiguousarray(part), *pixels.fitted(x2 - x1, y2 - y1, long_side))
    jpeg = pixels.encode_jpeg(part, PREPARE.quality)
    assert answer.query.crop is not None
    assert pixels.decode_whole(base64.b64decode(answer.query.crop.partition(",")[2])).shape == part.shape
    want = Embedder(made.folder / "model/test", device="cpu", precision="fp32").embed_jpegs([jpeg])[0]
    assert np.abs(scores_of(answer, made) - stored_vectors(made.folder) @ want).max() < 1e-4


def test_a_box_is_rounded_to_whole_pixels(service: Service) -> None:
    answer = Answer.model_validate(search(service, "a/0.jpg", "box=-0.4,10.6,400.3,299.9").json())
    assert answer.query.box == (0, 11, 400, 300)


@pytest.mark.parametrize(
    ("box", "reason", "says"),
    [
        ("0,0,401,300", "bad-box", "0 <= x1 < x2 <= 400 and 0 <= y1 < y2 <= 300"),
        ("-5,0,100,100", "bad-box", "the box is -5,0,100,100 and the upright photo 400 x 300 pixels"),
        ("200,0,100,100", "bad-box", "x1 < x2"),
        ("0,50,100,50", "bad-box", "y1 < y2"),
        ("1e300,0,2e300,9", "bad-box", "expected x1,y1,x2,y2"),
        ("10,10,20,200", "bad-box", "10 x 190 pixels; expected 16 or more a side"),
        ("0,0,nan,9", "bad-parameter", "box: got '0,0,nan,9', expected x1,y1,x2,y2"),
        ("1,2,3", "bad-parameter", "expected x1,y1,x2,y2"),
        ("", "bad-parameter", "expected x1,y1,x2,y2"),
        ("left", "bad-parameter", "for example box="),
    ],
)
def test_a_box_out_of_the_photo_is_refused(service: Service, box: str, reason: str, says: str) -> None:
    response = search(service, "a/0.jpg", f"box={box}")
    assert response.status_code == 422, response.text
    error = ErrorBody.model_validate(response.json()).error
    assert error.reason == reason and says in error.message


def test_with_a_box_too_a_bad_photo_gets_its_own_reason(service: Service) -> None:
    for photo, reason in ((b"", "empty"), (b"hello, I am no photo", "not-an-image"), (truncated(), "truncated")):
        response = service.client.post("/search?box=1,1,40,40", content=photo, headers={"Content-Type": "image/jpeg"})
        assert ErrorBody.model_validate(response.json()).error.reason == reason


def truncated() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").save(out, "JPEG")
    return out.getvalue()[:5000]


def test_the_servers_default_expands_and_a_query_may_turn_it_off(service: Service) -> None:
    by_default = Answer.model_validate(search(service, "a/0.jpg", "k=3").json())
    assert by_default.expansion is not None
    assert (by_default.expansion.num, by_default.expansion.alpha) == (2, 3.0)
    assert Answer.model_validate(search(service, "a/0.jpg", "k=3&expand=0").json()).expansion is None
    info = Info.model_validate(service.client.get("/info").json())
    assert (info.defaults.expand, info.model.crop) == (2, "fit")
