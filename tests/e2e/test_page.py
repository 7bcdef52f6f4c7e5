"""The query page in a real browser: choose, drop and paste a photo, read the answer, be told what is wrong."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval.images import pixels
from tests.support.browser import Page, open_page
from tests.support.service import MAX_BODY, MAX_K, Service, running_service

ANSWERED = "document.querySelectorAll('#results .card').length"
BEST = "document.querySelector('#results .card .id')?.textContent"
IDLE = "document.getElementById('answers').getAttribute('aria-busy') === 'false'"
ERROR = "document.getElementById('error').hidden ? '' : document.getElementById('error').textContent"


@pytest.fixture(scope="module")
def service(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("page")) as running:
        yield running


@pytest.fixture
def page(service: Service, tmp_path: Path) -> Iterator[Page]:
    with open_page(f"http://127.0.0.1:{service.port}/", tmp_path / "profile") as opened:
        opened.wait_for("document.getElementById('about').textContent.startsWith('Searches')")
        yield opened


def test_a_chosen_photo_is_answered_with_pictures_scores_and_its_box(service: Service, page: Page) -> None:
    image_id, path = next(iter(service.made.photos.items()))
    page.choose_file("#file", path)
    page.wait_for(f"{ANSWERED} === 10")
    assert page.run(BEST) == image_id
    scores = page.run("[...document.querySelectorAll('#results .score')].map((one) => Number(one.textContent))")
    assert scores[0] == 1 and scores == sorted(scores, reverse=True)
    page.wait_for("[...document.querySelectorAll('#results img')].every((one) => one.complete && one.naturalWidth > 0)")
    assert not page.run("document.getElementById('box').hasAttribute('hidden')")
    assert page.run("document.getElementById('box').getBoundingClientRect().width") > 0
    assert pixels.decode(page.screenshot())[0].std() > 10  # something is drawn


def test_it_says_what_is_searched(service: Service, page: Page) -> None:
    index = service.client.get("/info").json()["index"]
    about = f"Searches {index['num_images']} stored photos of {index['num_identities']} people."
    assert page.run("document.getElementById('about').textContent") == about


def test_the_number_of_results_asked_for_is_shown(service: Service, page: Page) -> None:
    page.choose_file("#file", next(iter(service.made.photos.values())))
    page.wait_for(f"{ANSWERED} === 10")
    offered = page.run("[...document.getElementById('k').options].map((one) => Number(one.value))")
    assert offered == [5, 10] and MAX_K == 12  # no more than the server gives
    page.run("(k => { k.value = '5'; k.dispatchEvent(new Event('change')); })(document.getElementById('k'))")
    page.wait_for(f"{ANSWERED} === 5 && {IDLE}")


def test_expansion_is_offered_asked_for_and_told(service: Service, page: Page) -> None:
    page.choose_file("#file", next(iter(service.made.photos.values())))
    page.wait_for(f"{ANSWERED} === 10")
    facts = "document.getElementById('facts').textContent"
    assert not page.run("document.getElementById('expansion').hidden") and "Expanded with" not in page.run(facts)
    page.run("(e => { e.value = '5'; e.dispatchEvent(new Event('change')); })(document.getElementById('expand'))")
    page.wait_for(f"{facts}.includes('Expanded with5 nearest, alpha 3') && {IDLE}")


def test_a_dropped_photo_is_searched_wherever_it_falls(service: Service, page: Page) -> None:
    image_id, path = list(service.made.photos.items())[1]
    page.drop_file(path, x=900, y=700)  # beside the field, over the results
    page.wait_for(f"{ANSWERED} === 10")
    assert page.run(BEST) == image_id
    assert page.run("location.pathname") == "/"  # the browser did not leave the page to show the file


def test_a_pasted_photo_is_searched(service: Service, page: Page) -> None:
    image_id, path = list(service.made.photos.items())[2]
    data = base64.b64encode(path.read_bytes()).decode()
    page.run(
        f"""(() => {{
            const bytes = Uint8Array.from(atob("{data}"), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "image.jpg", {{ type: "image/jpeg" }}));
            document.dispatchEvent(new ClipboardEvent("paste", {{ clipboardData: carried, bubbles: true }}));
        }})()"""
    )
    page.wait_for(f"{ANSWERED} === 10")
    assert page.run(BEST) == image_id


def test_what_is_wrong_is_said_and_the_next_photo_still_works(service: Service, page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("this is no photograph")
    page.choose_file("#file", tmp_path / "notes.jpg")
    assert "image" in page.wait_for(ERROR)
    assert page.run(ANSWERED) == 0
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8" + bytes(MAX_BODY))
    page.choose_file("#file", tmp_path / "large.jpg")
    page.wait_for(f"({ERROR}).includes('this server takes up to')")
    page.choose_file("#file", next(iter(service.made.photos.values())))
    page.wait_for(f"{ANSWERED} === 10")
    assert page.run(ERROR) == ""
