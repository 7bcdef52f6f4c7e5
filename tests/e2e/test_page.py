"""The page in a real browser, on a screen and on a phone: each thing that it does, and nothing that it should not."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from retrieval.artifacts.published import read_current
from retrieval.grouping.people import DUPLICATES_SCHEMA
from retrieval.grouping.settings import DUPLICATES
from retrieval.images import pixels
from serve import keys
from tests.support.browser import Page, open_page
from tests.support.photos import portrait
from tests.support.service import MAX_BODY, MAX_K, Service, running_service
from tests.support.workspace import make_workspace
from tests.unit.serve.routes.test_people import group

LOOKS = {"desktop": (1280, 900), "phone": (360, 760)}
READY = "!!document.body?.classList.contains('ready')"
CARDS = "document.querySelectorAll('#results .card[data-id]:not([hidden])').length"
SHOWN = "[...document.querySelectorAll('#results .card[data-id]')].map((one) => one.dataset.id)"
BEST = "document.querySelector('#results .card[data-id]')?.dataset.id"
IDLE = "document.getElementById('answers').getAttribute('aria-busy') === 'false'"
ERROR = "document.getElementById('error').hidden ? '' : document.getElementById('error').textContent"
ASKED = f"{IDLE} && {CARDS} > 0 && !document.getElementById('facts').hidden"
PICTURES = "[...document.querySelectorAll('#results img')].every((one) => one.complete && one.naturalWidth > 0)"


@pytest.fixture(scope="module")
def service(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = make_workspace(tmp_path_factory.mktemp("page"))
    group(made)
    ids = sorted(made.photos)
    row = {"image_id": ids[1], "duplicate_of": ids[0], "how": "same picture", "likeness": 0.98}
    copies = pa.Table.from_pylist([row], schema=DUPLICATES_SCHEMA)
    read_current(made.folder)["people"].write_table(DUPLICATES, copies)
    with running_service(tmp_path_factory.mktemp("service"), made) as running:
        yield running


@pytest.fixture(scope="module", params=LOOKS)
def browser(
    request: pytest.FixtureRequest, service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    with open_page(f"http://127.0.0.1:{service.port}/", tmp_path_factory.mktemp("browser") / "profile") as opened:
        opened.look(*LOOKS[request.param], dark=request.param == "phone")
        yield opened


@pytest.fixture
def page(service: Service, browser: Page) -> Iterator[Page]:
    """The page as it is first seen; afterwards it said nothing in the console and asked nobody else."""
    visit(service, browser, "#/")
    yield browser
    assert browser.complaints == []
    assert browser.hosts == {f"127.0.0.1:{service.port}"}
    assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def visit(service: Service, page: Page, address: str) -> None:
    page.call("Page.navigate", url="about:blank")
    page.call("Page.navigate", url=f"http://127.0.0.1:{service.port}/{address}")
    page.wait_for(READY)


def photo(service: Service, number: int = 0) -> tuple[str, Path]:
    return list(service.made.photos.items())[number]


def quoted(image_id: str) -> str:
    return image_id.replace("/", "%2F")


def click(page: Page, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def press_button(page: Page, text: str) -> None:
    """Press the button or link that is seen with this text."""
    script = f"""(() => {{
        const seen = [...document.querySelectorAll('button, a')].filter((one) => one.checkVisibility());
        const found = seen.find((one) => one.textContent.trim() === {json.dumps(text)});
        if (found) found.click();
        return Boolean(found);
    }})()"""
    page.wait_for(script)


def set_field(page: Page, selector: str, value: Any) -> None:
    page.run(
        f"(f => {{ f.value = {json.dumps(str(value))}; f.dispatchEvent(new Event('change', {{ bubbles: true }})); }})"
        f"(document.querySelector({json.dumps(selector)}))"
    )


def search(service: Service, page: Page, number: int = 0) -> str:
    image_id, path = photo(service, number)
    page.choose_file("#file", path)
    page.wait_for(f"{ASKED} && document.title === 'Image search' && location.hash.startsWith('#/photo')")
    return image_id


# ---- a photo in


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


# ---- how to search


def test_it_says_what_is_searched(service: Service, page: Page) -> None:
    index = service.client.get("/info").json()["index"]
    about = f"{index['num_images']} photos of {index['num_identities']} people"
    assert page.run("document.getElementById('about').textContent") == about


def test_options_are_asked_for_and_kept_in_the_address(service: Service, page: Page) -> None:
    search(service, page)
    offered = page.run("[...document.querySelector('[name=k]').options].map((one) => Number(one.value))")
    assert offered == [5, 10, MAX_K]  # no more than the server gives
    set_field(page, "[name=k]", 5)
    page.wait_for(f"{CARDS} === 5 && {IDLE}")
    set_field(page, "[name=expand]", 5)
    page.wait_for(f"document.getElementById('fact-list').textContent.includes('5 nearest, alpha 3') && {IDLE}")
    assert page.run("location.hash") == "#/photo?k=5&expand=5"


def test_it_tells_who_answered_and_where_the_time_went(service: Service, page: Page) -> None:
    search(service, page)
    facts = page.run(
        "Object.fromEntries([...document.querySelectorAll('#fact-list dt')]"
        ".map((one) => [one.textContent, one.nextSibling.textContent]))"
    )
    info = service.client.get("/v1/info").json()
    assert facts["Version"].split(",")[0] == info["version"]
    assert {"Find and cut", "Embed", "Search", "In all"} <= set(facts)
    assert all(facts[name].endswith(("ms", " s")) for name in ("Find and cut", "Embed", "Search", "In all"))


def test_more_like_this_is_a_link_that_shows_the_same_search_again(service: Service, page: Page) -> None:
    search(service, page)
    second = page.run("document.querySelectorAll('#results .card')[1].dataset.id")
    page.run("document.querySelectorAll('#results .card-like')[1].click()")
    asked = "document.querySelector('#asked figure span')?.title"
    page.wait_for(f"location.hash.startsWith('#/search?image_id=') && {ASKED} && {asked} === {json.dumps(second)}")
    assert second not in page.run(SHOWN)
    set_field(page, "[name=k]", 5)
    page.wait_for(f"{CARDS} === 5 && {IDLE}")
    address, shown = page.run("location.hash"), page.run(SHOWN)
    visit(service, page, address)
    page.wait_for(f"{CARDS} === 5 && {IDLE}")
    assert page.run(SHOWN) == shown


def test_a_result_is_shown_beside_the_photo_and_closes_on_escape(service: Service, page: Page) -> None:
    search(service, page)
    page.run("document.querySelector('#results .card-main').focus()")
    page.press("Enter")
    page.wait_for("document.querySelectorAll('dialog .pair figure').length === 2")
    assert page.barriers() == []
    page.press("ArrowRight")
    page.wait_for("document.querySelector('dialog h2').textContent === 'Result 2'")
    page.press("Escape")
    page.wait_for("!document.querySelector('dialog')")
    assert page.run("document.activeElement.className") == "card-main"  # where one was


def test_a_query_of_several_stored_photos(service: Service, page: Page) -> None:
    first, other = photo(service, 0)[0], photo(service, 5)[0]
    visit(service, page, f"#/search?image_id={quoted(first)}&unlike={quoted(other)}")
    page.wait_for(ASKED)
    assert page.run("document.querySelectorAll('#asked figure').length") == 2
    click(page, "#asked .against button")
    page.wait_for(f"{ASKED} && location.hash === '#/search?image_id={quoted(first)}'")
    assert page.run("document.querySelectorAll('#asked figure').length") == 1


# ---- what is in the gallery


def test_filters_stand_above_the_photos_and_are_taken_away_there(service: Service, page: Page) -> None:
    image_id = search(service, page)
    label = service.made.labels[image_id]
    set_field(page, "[name=label]", label)
    page.wait_for(f"{ASKED} && location.hash.includes('label={label}') && {CARDS} < {MAX_K}")
    wanted = {name for name, one in service.made.labels.items() if one == label}
    assert set(page.run(SHOWN)) <= wanted
    assert page.run("document.getElementById('filter-count').textContent") == "1"
    click(page, "#chips button")
    page.wait_for(f"{ASKED} && {CARDS} === {MAX_K} && document.getElementById('chips').hidden")


def test_the_gallery_is_seen_before_anything_is_asked(service: Service, page: Page) -> None:
    page.wait_for(f"{IDLE} && {CARDS} > 0")
    shown = page.run(SHOWN)
    assert set(shown) & set(service.made.photos) and shown == sorted(shown)
    page.run("document.querySelector('#results .card-like').click()")
    page.wait_for(f"{ASKED} && document.querySelector('#asked figure span').title === {json.dumps(shown[0])}")


def test_two_photos_are_compared(service: Service, page: Page) -> None:
    visit(service, page, "#/compare")
    first = photo(service)[1]
    page.choose_file("#compare .side:nth-child(1) input", first)
    page.choose_file("#compare .side:nth-child(2) input", first)
    verdict = "document.querySelector('#compare .decision')"
    page.wait_for(f"{verdict}?.textContent.includes('score 1.000')")
    assert page.run("document.querySelectorAll('#compare .stage .face').length") == 2
    assert page.barriers() == []


def add_folder(page: Page, folder: Path) -> None:
    """Drop a folder anywhere and have it added."""
    page.drop_file(folder, x=200, y=600)
    page.wait_for(
        "[...document.querySelectorAll('#add button')].some((one) => /^Add \\d/.test(one.textContent) && !one.hidden)"
    )
    page.run("[...document.querySelectorAll('#add button')].find((one) => /^Add \\d/.test(one.textContent)).click()")
    page.wait_for("/photos? added, /.test(document.querySelector('#add p[role=status]').textContent)")


def drawn(folder: Path, name: str, identity: int) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(pixels.encode_jpeg(portrait(identity)))
    return folder / name


def test_a_dropped_folder_is_added_and_each_photo_is_told(service: Service, page: Page, tmp_path: Path) -> None:
    width = page.run("innerWidth")  # other photos on each look: the service is the same
    folder = tmp_path / f"new-{width}"
    path = drawn(folder, "ada/1.jpg", width)
    drawn(folder, "ada/2.jpg", width + 1)
    drawn(folder, "ada/no#name.jpg", width + 2)  # refuses the whole request that it is in
    (folder / "broken.jpg").write_text("no photo")
    (folder / "notes.txt").write_text("not sent")
    add_folder(page, folder)
    told = page.run("[...document.querySelectorAll('#add .sent')].map((one) => one.className)")
    assert told == ["sent refused", "sent refused", "sent added", "sent added"]
    assert page.barriers() == []
    add_folder(page, folder)
    again = page.run("[...document.querySelectorAll('#add .sent')].map((one) => one.className)")
    assert again == ["sent refused", "sent refused", "sent known", "sent known"]
    visit(service, page, "#/")
    page.choose_file("#file", path)
    page.wait_for(f"{ASKED} && {BEST} === '{folder.name}/ada/1.jpg'")


def test_a_delete_waits_is_undone_and_brings_a_receipt(service: Service, page: Page, tmp_path: Path) -> None:
    width = page.run("innerWidth")
    folder = tmp_path / f"old-{width}"
    path = drawn(folder, "1.jpg", width + 3)
    add_folder(page, folder)
    visit(service, page, "#/")
    page.choose_file("#file", path)
    mine = f"{folder.name}/1.jpg"
    page.wait_for(f"{ASKED} && {BEST} === '{mine}'")
    card = f"document.querySelector('.card[data-id=\"{mine}\"]')"
    page.run(f"{card}.querySelector('.card-main').focus()")
    page.press("Delete")
    assert page.run(f"{card}.hidden")
    there = f"http://127.0.0.1:{service.port}/v1/images/{quoted(mine)}"
    assert service.client.get(there).status_code == 200  # nothing was sent
    press_button(page, "Undo")
    page.wait_for(f"!{card}.hidden")
    page.run(f"{card}.querySelector('.card-main').focus()")
    page.press("Delete")
    press_button(page, "Delete now")
    press_button(page, "Receipt")
    page.wait_for(f"document.querySelector('dialog')?.textContent.includes('{mine}')")
    assert page.barriers() == []
    assert service.client.get(there).status_code == 404


def test_everything_of_a_label_is_deleted_by_who_types_it_again(service: Service, page: Page, tmp_path: Path) -> None:
    width = page.run("innerWidth")
    name, base = f"leaver {width}", f"http://127.0.0.1:{service.port}/v1/images"
    paths = [drawn(tmp_path, f"{number}.jpg", 10 * width + number) for number in range(2)]
    for number, path in enumerate(paths):
        about = {"image_id": f"leaver-{width}/{number}.jpg", "label": name}
        assert service.client.post(base, params=about, content=path.read_bytes()).json()["added"] == 1
    page.choose_file("#file", paths[0])
    mine = f"leaver-{width}/0.jpg"
    page.wait_for(f"{ASKED} && {BEST} === '{mine}'")

    def confirm(typed: str) -> None:
        click(page, f'.card[data-id="{mine}"] .card-main')
        press_button(page, "Delete all of this label")
        page.wait_for("!!document.querySelector('dialog form input')")
        set_field(page, "dialog form input", typed)
        assert page.barriers() == []
        press_button(page, "Delete all")

    confirm("leaver")
    page.wait_for("document.body.textContent.includes('Nothing was deleted')")
    listed = {"filter": json.dumps({"label": [name]})}
    assert len(service.client.get(base, params=listed).json()["images"]) == 2
    confirm(name)
    press_button(page, "Receipt")
    page.wait_for(f"document.querySelector('dialog')?.textContent.includes('leaver-{width}/1.jpg')")
    assert service.client.get(base, params=listed).json()["images"] == []
    assert page.run(f"document.querySelector('.card[data-id=\"{mine}\"]')?.hidden ?? true")


def test_people_are_named_merged_and_split(service: Service, page: Page) -> None:
    visit(service, page, "#/people")
    page.wait_for("document.querySelectorAll('.person').length > 1")
    sizes = page.run(
        "[...document.querySelectorAll('.person > a')].map((one) => Number(one.lastChild.textContent.split(' ')[0]))"
    )
    page.run("[...document.querySelectorAll('.person input')].slice(0, 2).forEach((one) => one.click())")
    press_button(page, "Merge into one")
    count = "document.querySelector('#people .head p')?.textContent"
    page.wait_for(f"/people.\\d/.test(location.hash) && {count} === '{sizes[0] + sizes[1]} photos'")
    press_button(page, "Name")
    page.wait_for("!!document.querySelector('dialog input')")
    page.type("Ada")
    page.press("Enter")
    page.wait_for("document.querySelector('#people h1').textContent === 'Ada'")
    press_button(page, "Rename")
    page.wait_for("!!document.querySelector('dialog input')")
    page.run("(document.querySelector('dialog input').value = '')")
    page.press("Enter")
    page.wait_for("document.querySelector('#people h1').textContent.startsWith('person')")
    page.run(
        f"[...document.querySelectorAll('#people .card-pick input')].slice(0, {sizes[1]}).forEach((one) => one.click())"
    )
    press_button(page, "This is somebody else")
    page.wait_for(f"{count} === '{sizes[0]} photos'")
    assert page.barriers() == []


def test_copies_are_side_by_side(service: Service, page: Page) -> None:
    visit(service, page, "#/duplicates")
    page.wait_for("document.querySelectorAll('#duplicates .copies .copy').length >= 2")
    assert page.run("document.querySelector('#duplicates h2').textContent").startswith("2 photos: same")


# ---- with keys, and for those who listen


def test_the_keyboard_reaches_the_photos_and_goes_from_one_to_the_next(service: Service, page: Page) -> None:
    search(service, page)
    stops = "[...document.querySelectorAll('#results .card-main')].filter((one) => one.tabIndex === 0).length"
    assert page.run(stops) == 1
    place = "[...document.querySelectorAll('#results .card')].indexOf(document.activeElement.closest('.card'))"
    page.run("document.querySelector('#results .card-main').focus()")
    page.press("ArrowRight")
    assert page.run(place) == 1
    page.press("ArrowDown")
    below = page.run(place)
    assert below > 2 and page.run(stops) == 1
    page.press("ArrowUp")
    assert page.run(place) == 1
    page.press("End")
    assert page.run(place) == MAX_K - 1


def test_the_first_tab_skips_to_the_content(service: Service, page: Page) -> None:
    page.press("Tab")
    assert page.run("document.activeElement.id") == "skip"
    page.press("Enter")
    assert page.run("document.activeElement.id") == "main"


def test_what_happens_is_said(service: Service, page: Page) -> None:
    search(service, page)
    assert f"{MAX_K} photos" in page.run("document.getElementById('said').textContent")
    assert page.run("document.getElementById('said').getAttribute('aria-live')") == "polite"


def test_without_motion_nothing_moves(service: Service, page: Page) -> None:
    width, height = page.run("[innerWidth, innerHeight]")
    page.look(width, height, still=True)
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"
    search(service, page)
    assert page.run(moving) == 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_view_is_closed_to_anybody(service: Service, page: Page, dark: bool) -> None:
    page.look(*page.run("[innerWidth, innerHeight]"), dark=dark)
    views = page.run("[...document.querySelectorAll('#nav a')].map((one) => one.hash)")
    assert "#/compare" in views
    for view in [*views, f"#/search?image_id={quoted(photo(service)[0])}"]:
        visit(service, page, view)
        page.wait_for(IDLE)
        page.run("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.barriers() == [], view
        assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), view


def test_a_key_is_asked_for_once_and_a_service_that_is_busy_is_asked_again(service: Service, tmp_path: Path) -> None:
    """The last test: from the first key on, the service lets nobody in without one."""
    key = keys.create(service.made.folder, "page", "search", per_minute=20)
    while service.client.get("/v1/info").status_code != 401:
        time.sleep(0.1)
    with open_page(f"http://127.0.0.1:{service.port}/", tmp_path / "profile") as page:
        page.wait_for("!!document.querySelector('dialog input')")
        page.type(key)
        page.press("Enter")
        page.wait_for(READY)
        search(service, page)
        page.run("document.querySelectorAll('#results img').forEach((one) => one.scrollIntoView())")
        page.wait_for("document.querySelector('#results img').src.startsWith('blob:')")  # an <img> sends no key
        while service.client.get("/v1/info", headers={"x-api-key": key}).status_code == 200:
            pass  # until the minute's worth is used up
        set_field(page, "[name=k]", 5)
        page.wait_for("document.getElementById('toasts').textContent.startsWith('The server is busy. Asking again')")
        page.wait_for(f"{CARDS} === 5 && {IDLE}")
        assert page.complaints == [] and page.barriers() == []
