"""Pictures that are there more than once, over HTTP."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from retrieval.artifacts.published import read_current
from retrieval.grouping.people import DUPLICATES_SCHEMA
from retrieval.grouping.settings import DUPLICATES
from serve.schemas import DuplicatesPage
from serve.service import Service
from tests.support.asked import Client, refusal, run
from tests.support.workspace import make_workspace
from tests.unit.serve.routes.test_people import group


def test_copies_are_listed_as_long_as_two_are_left(tmp_path: Path) -> None:
    made = make_workspace(tmp_path)
    group(made)
    ids = sorted(made.photos)
    rows = [
        (ids[1], ids[0], "same picture", 0.98),
        (ids[2], ids[0], "same picture", 0.99),
        (ids[4], ids[3], "same picture", 0.97),
        ("not indexed.jpg", ids[5], "same file", 1.0),
        ("nor this.jpg", ids[6], "same file", 1.0),
    ]
    table = pa.Table.from_pylist(
        [dict(zip(DUPLICATES_SCHEMA.names, row, strict=True)) for row in sorted(rows)], schema=DUPLICATES_SCHEMA
    )
    read_current(made.folder)["people"].write_table(DUPLICATES, table)

    async def work(service: Service, client: Client) -> None:
        page = DuplicatesPage.model_validate((await client.get("/v1/duplicates")).json())
        assert [one.image_ids for one in page.groups] == [
            [ids[0], ids[1], ids[2]],
            [ids[3], ids[4]],
            [ids[5], "not indexed.jpg"],
            [ids[6], "nor this.jpg"],
        ]
        assert (page.total, page.next) == (4, None)
        assert page.groups[0].likeness < 0.985 and page.groups[2].how == "same file"
        assert page.groups[2].thumbnails[1] is None
        shown = page.groups[2].thumbnails[0]
        assert shown is not None and (await client.get(shown)).status_code == 200
        first = DuplicatesPage.model_validate((await client.get("/v1/duplicates?limit=3")).json())
        rest = (await client.get("/v1/duplicates", params={"limit": 3, "after": first.next})).json()["groups"]
        assert [one["image_ids"] for one in rest] == [[ids[6], "nor this.jpg"]]
        assert refusal(await client.get("/v1/duplicates?limit=0")) == (422, "bad-parameter")

        gallery = service.versions.current.gallery
        assert gallery.store is not None
        gallery.store.delete([ids[0], ids[4], ids[6]], {})
        after = DuplicatesPage.model_validate((await client.get("/v1/duplicates")).json())
        assert [one.image_ids for one in after.groups] == [[ids[1], ids[2]], [ids[5], "not indexed.jpg"]]
        assert after.live == 1
        assert "nor this.jpg" not in (await client.get("/v1/duplicates")).text, "it is a copy of what was deleted"

    run(made, work)
