"""POST /v1/verify: same, different, cannot tell; and what is no photo at all."""

from __future__ import annotations

import pytest

from retrieval.artifacts.calibration import Calibration, Curve, KnownThreshold, Rate
from serve.schemas import VerifyAnswer
from serve.service import Service
from tests.support.asked import Client, refusal, run
from tests.support.hostile import written
from tests.support.workspace import Workspace, make_workspace

CALIBRATION = Calibration(
    model="m",
    curve=Curve(intercept=-4.0, low=1.0, high=2.0),
    rates=(
        Rate(far=1e-2, why="too few people"),
        Rate(far=1e-3, threshold=0.9, threshold_interval=(0.85, 0.95), far_interval=(0.0, 0.01)),
    ),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_workspace(tmp_path_factory.mktemp("verify"), num_identities=2)


def _pair(first: bytes, second: bytes) -> dict[str, tuple[str, bytes]]:
    return {"first": ("1.jpg", first), "second": ("2.jpg", second)}


def test_what_is_said_of_two_photos(made: Workspace) -> None:
    photo, *others = [path.read_bytes() for path in made.photos.values()]

    async def work(service: Service, client: Client) -> None:
        version = service.versions.current

        async def ask(first: bytes, second: bytes, address: str = "") -> VerifyAnswer:
            response = await client.post(f"/v1/verify{address}", files=_pair(first, second))
            assert response.status_code == 200, response.text
            return VerifyAnswer.model_validate(response.json())

        told = await ask(photo, photo)
        assert (told.answer, told.threshold, told.promised) == ("cannot tell", None, False)
        assert told.score == pytest.approx(1, abs=1e-5)
        assert "never calibrated" in told.why
        assert (told.model, told.version) == (version.pair.model_fingerprint, version.name)

        version.known = KnownThreshold(threshold=0.5, source="its maker")
        told = await ask(photo, photo)
        assert (told.answer, told.threshold, told.promised) == ("same", 0.5, False)

        version.calibration = CALIBRATION
        told = await ask(photo, photo)
        assert (told.answer, told.threshold, told.promised, told.far) == ("same", 0.9, True, 0.001)
        assert told.probability is not None and told.probability > 0.9
        assert told.first is not None and told.second is not None
        assert told.first == told.second and told.first.quality is not None
        assert (await ask(photo, photo, "?far=0.01")).promised is False
        refused = await client.post("/v1/verify?far=0.2", files=_pair(photo, photo))
        assert refusal(refused) == (422, "bad-parameter")

        scores = [(await ask(photo, other)).score for other in others]
        jpeg = version.gallery.jpeg
        ids = list(made.photos)
        crops = [await version.embed(jpeg(one)) for one in ids]
        assert scores == pytest.approx([float(crops[0] @ crop) for crop in crops[1:]], abs=1e-3)

    run(made, work)


def test_a_photo_with_nobody_on_it_is_no_failure(made: Workspace) -> None:
    photo, nobody = next(iter(made.photos.values())).read_bytes(), written("JPEG")

    async def work(_: Service, client: Client) -> None:
        told = VerifyAnswer.model_validate((await client.post("/v1/verify", files=_pair(photo, nobody))).json())
        assert (told.answer, told.score, told.second) == ("cannot tell", None, None)
        assert told.first is not None
        assert told.why.startswith("The second photo: No face was found")
        both = VerifyAnswer.model_validate((await client.post("/v1/verify", files=_pair(nobody, nobody))).json())
        assert "The first photo" in both.why and "The second photo" in both.why

        for bad, status, reason in ((b"x", 415, "not-an-image"), (photo[:400], 400, "unreadable"), (b"", 400, "empty")):
            response = await client.post("/v1/verify", files=_pair(photo, bad))
            assert refusal(response) == (status, reason)
            assert response.json()["error"]["message"].startswith("The second photo: ")
        large = await client.post("/v1/verify", files=_pair(photo, b"x" * 60_001))
        assert refusal(large) == (413, "body-too-large")
        one = await client.post("/v1/verify", files={"first": photo})
        assert refusal(one) == (400, "bad-request") and "'second'" in one.json()["error"]["message"]
        assert refusal(await client.post("/v1/verify", content=photo)) == (415, "not-a-photo")

    run(made, work, max_body_bytes=60_000)
