"""The page with the keyboard alone, and for those who listen or want no motion."""

from __future__ import annotations

import pytest

from tests.support.browser import Page
from tests.support.page import IDLE, photo, quoted, search, visit
from tests.support.service import MAX_K, Service


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
