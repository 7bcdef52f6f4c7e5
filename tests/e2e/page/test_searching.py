"""How to search on the page, and how to look at what was found."""

from __future__ import annotations

import json

from tests.support.browser import Page
from tests.support.page import ASKED, CARDS, IDLE, SHOWN, click, photo, quoted, search, set_field, visit
from tests.support.service import MAX_K, Service


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
