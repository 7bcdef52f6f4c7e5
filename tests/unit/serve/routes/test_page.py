"""The page's files are served from its folder."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx

from serve.edge import new_api
from serve.routes import page

PAGE = Path(__file__).resolve().parents[4] / "serve/page"


def ask(method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    api = new_api()
    page.add(api)

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://test") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


def test_every_file_of_the_page_is_there_as_it_is() -> None:
    for path in (path for path in PAGE.rglob("*") if path.suffix in page._PAGE_TYPES):
        assert (
            ask("GET", f"/{path.relative_to(PAGE).as_posix()}".replace("/index.html", "/")).content == path.read_bytes()
        )


def test_the_page_is_served() -> None:
    for path, kind in (("/", "text/html"), ("/modules/main.js", "text/javascript"), ("/style.css", "text/css")):
        response = ask("GET", path)
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(kind)


def test_the_page_is_asked_for_again_each_time_and_is_no_part_of_the_schema() -> None:
    assert ask("GET", "/modules/main.js").headers["cache-control"] == "no-cache"
    api = new_api()
    page.add(api)
    assert api.openapi()["paths"] == {}


def test_a_file_of_the_page_that_did_not_change_is_not_sent_again() -> None:
    first = ask("GET", "/style.css")
    again = ask("GET", "/style.css", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert ask("GET", "/", headers={"if-none-match": first.headers["etag"]}).status_code == 200  # another file


def test_no_module_waits_for_another_to_be_asked_for() -> None:
    text = (PAGE / "index.html").read_text()
    asked = set(re.findall(r'(?:src|href)="(modules/[^"]+)"', text))
    assert asked == {path.relative_to(PAGE).as_posix() for path in PAGE.glob("modules/*.js")}


def test_nothing_in_the_page_is_html_made_of_text_or_style_in_a_tag() -> None:
    sources = {path.name: path.read_text() for path in PAGE.rglob("*") if path.suffix in (".js", ".html")}
    forbidden = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\sstyle=|\son\w+="
    )
    assert {name: found for name, text in sources.items() if (found := forbidden.findall(text))} == {}
