"""People over HTTP: who was found, merged, named, split; and the same after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.published import publish, read_current
from retrieval.grouping import people
from retrieval.grouping.links import LinkFinder
from retrieval.grouping.settings import GroupingConfig
from retrieval.grouping.threshold import Threshold
from retrieval.live.people import SPLIT_FROM
from serve.engine.groups import Groups
from serve.schemas import PeopleAfter, PeoplePage, PersonPhotos
from serve.service import Service
from tests.support.asked import Client, refusal, run
from tests.support.workspace import Workspace, make_workspace


def group(made: Workspace, threshold: float = 0.8) -> None:
    """Group the gallery's photos and publish the groups. The tiny network sees two or three people in them."""
    where = read_current(made.folder)
    out, embeddings = made.folder / "people/test", made.folder / "embeddings/test"
    plan = people.plan_people(
        index=where["index"],
        embeddings=embeddings,
        collection=where["collection"],
        out=out,
        config=GroupingConfig(),
        threshold=Threshold(value=threshold, source="as set"),
    )
    people.begin_people(plan)
    find = LinkFinder(plan.index, plan.embeddings, plan.out, plan.config.neighbours, threshold)
    parts = len([name for name in embeddings.list() if name.startswith("part-")])
    linked = [find(part) for part in range(parts)]
    counts = people.write_people(plan, [str(row["name"]) for row in linked])
    people.write_duplicates(plan, 0)
    counts |= people.count_duplicates(plan.out)
    people.seal_people(plan, counts, {str(row["name"]): str(row["sha256"]) for row in linked})
    publish(made.folder, **where, people=out)


@pytest.fixture
def made(tmp_path: Path) -> Workspace:
    made = make_workspace(tmp_path)
    group(made)
    return made


async def _all(client: Client, limit: int = 50) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        params = {"limit": limit} | ({} if after is None else {"after": after})
        page = PeoplePage.model_validate((await client.get("/v1/people", params=params)).json())
        found += [one.model_dump() for one in page.people]
        assert len(page.people) <= limit
        if (after := page.next) is None:
            assert page.total == len(found)
            return found


async def _say(client: Client, person: int, what: str, **body: Any) -> httpx.Response:
    return await client.post(f"/v1/people/{person}/{what}", json=body)


def _after(response: httpx.Response) -> PeopleAfter:
    assert response.status_code == 200, response.text
    return PeopleAfter.model_validate(response.json())


def test_people_are_listed_and_looked_at(made: Workspace) -> None:
    async def work(service: Service, client: Client) -> None:
        everybody = await _all(client)
        assert len(everybody) >= 2
        assert everybody == await _all(client, limit=1)
        counts = [one["photos"] for one in everybody]
        assert counts == sorted(counts, reverse=True)
        first = everybody[0]
        assert first["image_ids"] and first["cover"][0].startswith("/v1/images/")
        assert (await client.get(first["cover"][0])).headers["content-type"] == "image/jpeg"
        person = PersonPhotos.model_validate((await client.get(f"/v1/people/{first['person']}?limit=500")).json())
        assert len(person.images) == person.photos == first["photos"]
        assert {one.person for one in person.images} == {first["person"]}
        assert [one.image_id for one in person.images][:4] == first["image_ids"]
        assert refusal(await client.get("/v1/people/999")) == (404, "not-found")
        assert refusal(await client.get("/v1/people/ada")) == (422, "bad-parameter")
        for bad in ("1", "x-1", "1-2-3", "-", "1-" + "9" * 60):
            assert refusal(await client.get("/v1/people", params={"after": bad})) == (422, "bad-parameter")

    run(made, work)


def test_what_is_said_of_people_holds_for_searches_and_after_a_restart(made: Workspace) -> None:
    seen: list[Any] = []

    async def work(service: Service, client: Client) -> None:
        first, second = (await _all(client))[:2]
        one, other = first["person"], second["person"]
        named = _after(await _say(client, one, "name", name=" Ada "))
        assert (named.people[0].name, named.live) == ("Ada", 1)
        merged = _after(await _say(client, other, "merge", into=one))
        assert [(who.person, who.photos, who.name) for who in merged.people] == [
            (one, first["photos"] + second["photos"], "Ada")
        ]
        assert refusal(await client.get(f"/v1/people/{other}")) == (404, "not-found")
        asked = {"image_id": second["image_ids"][0], "k": 1}
        found = (await client.post("/v1/search", json=asked)).json()["results"][0]
        assert (found["person"], found["person_name"]) == (one, "Ada")
        moved = second["image_ids"][:1]
        split = _after(await _say(client, one, "split", image_ids=moved))
        assert [who.person for who in split.people] == [one, SPLIT_FROM + 3]
        assert (split.people[1].image_ids, split.people[1].name, split.live) == (moved, None, 3)
        filtered = {"image_id": moved[0], "k": 50, "filter": {"person": [SPLIT_FROM + 3]}}
        found = (await client.post("/v1/search", json=filtered)).json()
        assert [result["image_id"] for result in found["results"]] == moved
        nameless = _after(await _say(client, one, "name", name=None))
        assert nameless.people[0].name is None
        _after(await _say(client, one, "name", name="Ada L."))
        seen.append(await _all(client))
        assert Groups(service.versions.current.gallery).members() is Groups(service.versions.current.gallery).members()

    run(made, work)

    async def again(_: Service, client: Client) -> None:
        assert await _all(client) == seen[0]
        assert seen[0][0]["name"] == "Ada L."

    run(made, again)


def test_what_makes_no_sense_changes_nothing(made: Workspace) -> None:
    async def work(service: Service, client: Client) -> None:
        before = await _all(client)
        one, other = (who["person"] for who in before[:2])
        mine = [image.image_id for image in Groups(service.versions.current.gallery).gallery.entries(None, 500)[0]]
        own = [name for name in mine if service.versions.current.gallery.entry(name).person == one]
        others = next(name for name in mine if name not in own)
        for response, expected in (
            (await _say(client, one, "merge", into=one), (422, "bad-parameter")),
            (await _say(client, one, "merge", into=999), (404, "not-found")),
            (await _say(client, 999, "merge", into=one), (404, "not-found")),
            (await _say(client, 999, "name", name="x"), (404, "not-found")),
            (await _say(client, one, "name"), (422, "bad-parameter")),
            (await _say(client, one, "name", name="x", colour="red"), (422, "bad-parameter")),
            (await _say(client, one, "split", image_ids=[]), (422, "bad-parameter")),
            (await _say(client, one, "split", image_ids=[others]), (422, "bad-parameter")),
            (await _say(client, one, "split", image_ids=["nobody"]), (422, "bad-parameter")),
            (await _say(client, one, "split", image_ids=own), (422, "bad-parameter")),
            (await _say(client, 999, "split", image_ids=own[:1]), (404, "not-found")),
        ):
            assert refusal(response) == expected, response.request.url
        assert await _all(client) == before
        assert service.versions.current.gallery.seq == 0
        store = service.versions.current.gallery.store
        service.versions.current.gallery.store = None
        assert refusal(await _say(client, one, "merge", into=other)) == (409, "read-only")
        service.versions.current.gallery.store = store

    run(made, work)


def test_a_gallery_that_was_never_grouped_has_nobody(tmp_path: Path) -> None:
    made = make_workspace(tmp_path, num_identities=2)

    async def work(_: Service, client: Client) -> None:
        assert await _all(client) == []

    run(made, work)
    assert Folder.of(made.folder).list()
