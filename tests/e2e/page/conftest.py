"""One service and, on a screen and on a phone, one browser for all modules of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from retrieval.artifacts.published import read_current
from retrieval.grouping.people import DUPLICATES_SCHEMA
from retrieval.grouping.settings import DUPLICATES
from tests.support.browser import Page, open_page
from tests.support.page import visit
from tests.support.service import Service, running_service
from tests.support.workspace import make_workspace
from tests.unit.serve.routes.test_people import group

LOOKS = {"desktop": (1280, 900), "phone": (360, 760)}


@pytest.fixture(scope="package")
def service(ray_local: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    made = make_workspace(tmp_path_factory.mktemp("page"))
    group(made)
    ids = sorted(made.photos)
    row = {"image_id": ids[1], "duplicate_of": ids[0], "how": "same picture", "likeness": 0.98}
    copies = pa.Table.from_pylist([row], schema=DUPLICATES_SCHEMA)
    read_current(made.folder)["people"].write_table(DUPLICATES, copies)
    with running_service(tmp_path_factory.mktemp("service"), made) as running:
        yield running


@pytest.fixture(scope="package", params=LOOKS)
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
