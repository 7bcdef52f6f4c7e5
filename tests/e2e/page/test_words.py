"""The field for words: there where the model takes them, and what is written in it is searched for."""

from __future__ import annotations

from pathlib import Path

from tests.support.browser import Page, open_page
from tests.support.listening import Listening, listening
from tests.support.page import ASKED, BEST, ERROR, IDLE, READY, SHOWN, click
from tests.support.words import make_words_workspace

OFFERED = "document.getElementById('words').checkVisibility()"


def go(at: Listening, page: Page, address: str = "") -> None:
    page.call("Page.navigate", url="about:blank")
    page.call("Page.navigate", url=f"{at.address}/{address}")
    page.wait_for(f"{READY} && {IDLE}")


def test_words_are_searched_for_and_kept_in_the_address(tmp_path: Path) -> None:
    made = make_words_workspace(tmp_path)
    with listening(workspace=str(made.folder), engine="auto") as at:
        with open_page(f"{at.address}/", tmp_path / "browser") as page:
            go(at, page)
            assert page.run(OFFERED)
            page.run("document.getElementById('text').focus()")
            page.type("yellow circle")
            page.press("Enter")
            page.wait_for(f"{ASKED} && location.hash === '#/search?text=yellow+circle'")
            shown = page.run(SHOWN)
            assert {one.partition("/")[0] for one in shown[:3]} == {"yellow circle"}
            assert page.barriers() == []
            page.look(360, 760)
            assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            go(at, page, page.run("location.hash"))
            page.wait_for(ASKED)
            assert page.run(SHOWN) == shown and page.run("document.getElementById('text').value") == "yellow circle"
            page.run("document.querySelector('#results .card-main').click()")
            page.wait_for("document.querySelectorAll('dialog .pair figure').length === 1")
            page.press("Escape")
            click(page, "#results .card-like")
            page.wait_for(f"{ASKED} && location.hash.startsWith('#/search?image_id=')")
            assert page.run("document.getElementById('text').value") == ""
            page.run("document.getElementById('text').value = 'blue triangle'")
            click(page, "#say")
            page.wait_for(f"{ASKED} && {BEST}.startsWith('blue triangle/')")
            assert page.run("location.hash") == "#/search?text=blue+triangle" and page.run(ERROR) == ""
            page.choose_file("#file", made.photos["red square/0.jpg"])
            page.wait_for(f"{ASKED} && {BEST} === 'red square/0.jpg'")
            assert page.run("location.hash") == "#/photo"
            assert page.complaints == []
