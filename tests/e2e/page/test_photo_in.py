"""A photo comes to the page: chosen, dropped, pasted or taken; wrong ones; one of its faces."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np

from retrieval.images import pixels
from tests.support.browser import Page
from tests.support.page import ASKED, BEST, CARDS, ERROR, PICTURES, SHOWN, photo, search
from tests.support.service import MAX_BODY, MAX_K, Service


def test_a_chosen_photo_is_answered_with_pictures_scores_a_decision_and_its_box(service: Service, page: Page) -> None:
    image_id = search(service, page)
    assert page.run(BEST) == image_id
    scores = page.run("[...document.querySelectorAll('#results .score')].map((one) => Number(one.textContent))")
    assert scores[0] == 1 and scores == sorted(scores, reverse=True) and len(scores) == MAX_K
    assert page.run("document.querySelector('#decision strong').textContent")
    page.run("document.querySelectorAll('#results img').forEach((one) => (one.loading = 'eager'))")
    page.wait_for(PICTURES)
    box = page.run("(r => [r.width, r.height])(document.querySelector('#stage .face').getBoundingClientRect())")
    assert min(box) > 20
    assert pixels.decode(page.screenshot())[0].std() > 10  # something is drawn
    assert page.barriers() == []


def test_a_dropped_photo_is_searched_wherever_it_falls(service: Service, page: Page) -> None:
    image_id, path = photo(service, 1)
    page.drop_file(path, x=200, y=600)  # beside the field
    page.wait_for(ASKED)
    assert page.run(BEST) == image_id
    assert page.run("location.pathname") == "/"  # the browser did not leave the page to show the file


def test_a_pasted_photo_is_searched(service: Service, page: Page) -> None:
    image_id, path = photo(service, 2)
    data = base64.b64encode(path.read_bytes()).decode()
    page.run(
        f"""(() => {{
            const bytes = Uint8Array.from(atob("{data}"), (letter) => letter.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "image.jpg", {{ type: "image/jpeg" }}));
            document.dispatchEvent(new ClipboardEvent("paste", {{ clipboardData: carried, bubbles: true }}));
        }})()"""
    )
    page.wait_for(ASKED)
    assert page.run(BEST) == image_id


def test_a_photograph_can_be_taken(service: Service, page: Page) -> None:
    field = "document.getElementById('camera')"
    assert page.run(f"[{field}.accept, {field}.getAttribute('capture')]") == ["image/*", "environment"]
    image_id, path = photo(service, 3)
    page.choose_file("#camera", path)
    page.wait_for(ASKED)
    assert page.run(BEST) == image_id


def test_what_is_wrong_is_said_and_the_next_photo_still_works(service: Service, page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("this is no photograph")
    page.choose_file("#file", tmp_path / "notes.jpg")
    assert "image" in page.wait_for(ERROR)
    assert page.run(CARDS) == 0 and page.failed
    (tmp_path / "large.jpg").write_bytes(b"\xff\xd8" + bytes(MAX_BODY))
    page.choose_file("#file", tmp_path / "large.jpg")
    page.wait_for(f"({ERROR}).includes('this server takes up to')")
    search(service, page)
    assert page.run(ERROR) == ""


def test_each_face_of_a_photo_can_be_chosen(service: Service, page: Page, tmp_path: Path) -> None:
    sides = [pixels.decode(photo(service, number)[1].read_bytes())[0] for number in (0, 8)]
    (tmp_path / "two.jpg").write_bytes(pixels.encode_jpeg(np.hstack(sides)))
    page.choose_file("#file", tmp_path / "two.jpg")
    page.wait_for(f"{ASKED} && document.querySelectorAll('#stage button.face').length === 2")
    assert page.run("document.querySelectorAll('#faces .face-chip canvas').length") == 2
    chosen = "document.querySelector('#stage .face[aria-pressed=true]').dataset.face"
    first, other = page.run(f"[{chosen}, {SHOWN}]"), page.run(f"{chosen} === '0' ? '1' : '0'")
    page.run(f"document.querySelector('#stage .face[data-face=\"{other}\"]').focus()")
    page.press("Enter")
    page.wait_for(f"location.hash.includes('face={other}') && {chosen} === '{other}'")
    assert page.run(SHOWN) != first[1]
    assert page.run("document.activeElement.dataset.face") == other  # the focus stays
    assert page.barriers() == []
