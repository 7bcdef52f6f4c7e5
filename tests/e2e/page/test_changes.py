"""What is changed from the page: photos added and deleted, people named, merged and split."""

from __future__ import annotations

import json
from pathlib import Path

from retrieval.images import pixels
from tests.support.browser import Page
from tests.support.page import ASKED, BEST, click, press_button, quoted, set_field, visit
from tests.support.photos import portrait
from tests.support.service import Service


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
