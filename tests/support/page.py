"""What a person does on the page, and what is seen of it there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.browser import Page
from tests.support.service import Service

READY = "!!document.body?.classList.contains('ready')"
CARDS = "document.querySelectorAll('#results .card[data-id]:not([hidden])').length"
SHOWN = "[...document.querySelectorAll('#results .card[data-id]')].map((one) => one.dataset.id)"
BEST = "document.querySelector('#results .card[data-id]')?.dataset.id"
IDLE = "document.getElementById('answers').getAttribute('aria-busy') === 'false'"
ERROR = "document.getElementById('error').hidden ? '' : document.getElementById('error').textContent"
ASKED = f"{IDLE} && {CARDS} > 0 && !document.getElementById('facts').hidden"
PICTURES = "[...document.querySelectorAll('#results img')].every((one) => one.complete && one.naturalWidth > 0)"


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
