"""The last module of this folder: from the first key on, the service lets nobody in without one."""

from __future__ import annotations

import time
from pathlib import Path

from serve import keys
from tests.support.browser import open_page
from tests.support.page import CARDS, IDLE, READY, search, set_field
from tests.support.service import Service


def test_a_key_is_asked_for_once_and_a_service_that_is_busy_is_asked_again(service: Service, tmp_path: Path) -> None:
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
