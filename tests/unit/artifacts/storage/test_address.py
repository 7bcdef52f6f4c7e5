"""What an address names, and real s3:// addresses: a server of somebody else's making answers on loopback."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from retrieval.artifacts.folder import Folder
from retrieval.artifacts.storage.address import SINGLE_PUT, keys_of, local_path, open_address, parse, parse_photo
from retrieval.artifacts.storage.failures import Outage, kind_of
from retrieval.artifacts.storage.patience import patience, patiently
from retrieval.artifacts.writing.seam import publish
from retrieval.data.listing import list_source
from tests.support.faulty_proxy import FAULTS, FaultyProxy
from tests.support.object_store import ObjectStore


def test_an_address_is_taken_apart_letter_by_letter_and_has_one_spelling() -> None:
    made = parse("s3://photos/2019/a b%20c/?scheme=http&endpoint_override=minio:9000")
    assert (made.scheme, made.bucket, made.path) == ("s3", "photos", "2019/a b%20c")
    assert dict(made.options) == {"scheme": "http", "endpoint_override": "minio:9000"}
    assert str(made) == "s3://photos/2019/a b%20c?endpoint_override=minio:9000&scheme=http"
    assert parse(str(made)) == made and made.key == "photos/2019/a b%20c"
    assert (str(parse("gs://b/")), parse("gs://b").key) == ("gs://b", "b")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://b/p?regoin=x", "'regoin' is no option of a s3:// address. Choose among region, endpoint_override"),
        ("gs://b/p?region=x", "'region' is no option of a gs:// address"),
        ("s3://b/p?region=x&region=y", "gives an option twice"),
        ("s3:///p", "names no bucket"),
        ("ftp://b/p", "in no store that is known here. Give a path, file://, s3://, gs://"),
        ("file://other/p", "names a path of another machine"),
    ],
)
def test_an_address_that_names_no_place_is_refused(uri: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        Folder.of(uri)


@pytest.mark.parametrize("uri", ["s3://mine:hidden@bucket/p", "s3://mine:hid/den@bucket/p", "s3://mine:9000/bucket/p"])
def test_keys_in_an_address_are_refused_without_being_repeated(uri: str) -> None:
    with pytest.raises(ValueError, match=r"must hold no credentials.*\?endpoint_override=HOST:PORT") as caught:
        Folder.of(uri)
    assert "hid" not in str(caught.value) and "mine" not in str(caught.value)


def test_a_file_address_is_its_path() -> None:
    assert local_path("file:///data/a%20b") == "/data/a b" and local_path("s3://b/p") is None
    assert Folder.of("file:///data/a%20b/") == Folder.of("/data/a b") and Folder.of("file:///data").is_local


def test_a_photo_s_address_has_its_own_options_or_those_of_the_table_and_may_hold_a_question_mark() -> None:
    options = (("region", "eu"),)
    assert parse_photo("s3://b/a.jpg", options).options == options
    assert parse_photo("s3://b/a.jpg?region=us", options).options == (("region", "us"),)
    assert parse_photo("s3://b/who?.jpg", options).key == "b/who?.jpg"
    assert parse_photo("s3://b/what?x=1.jpg").key == "b/what?x=1.jpg"


def test_options_stay_behind_the_path(tmp_path: Path) -> None:
    folder = Folder.of("s3://b/p/?region=eu")
    assert (folder / "c").uri == "s3://b/p/c?region=eu" and (folder / "c").path == "b/p/c"
    assert (folder / "c" / "d").parent == folder / "c" and (folder / "c").name == "c"
    assert Folder.of("s3://b?region=eu").parent.uri == "s3://b?region=eu"
    assert (folder / "c/d").relative_to(folder) == "c/d"
    assert (folder / "c").relative_to(Folder.of("s3://b/p")) == "s3://b/p/c?region=eu", "another connection"
    assert Folder.of("/a").parent == Folder.of("/") == Folder.of("/").parent and Folder.of("/") / "a" == Folder.of("/a")
    assert Folder.of("/x/ab").relative_to(Folder.of("/x/a")) == "/x/ab"
    assert (Folder.of(tmp_path) / "a?b").parent == Folder.of(tmp_path), "a local path has no options"


def through(proxy: FaultyProxy, folder: Folder) -> Folder:
    """The same place, by way of a proxy."""
    return Folder.of(f"{folder.uri.partition('?')[0]}?endpoint_override={proxy.address}&scheme=http")


def test_an_object_store_is_written_read_and_listed(bucket: Folder) -> None:
    assert bucket.list() == {} and not bucket.exists("a")
    bucket.write_bytes("a", b"whole")
    bucket.write_table("deep/b.parquet", pa.table({"x": [1, 2]}))
    assert bucket.read_bytes("a") == b"whole" and bucket.read_table("deep/b.parquet")["x"].to_pylist() == [1, 2]
    assert list(bucket.list()) == ["a", "deep/b.parquet"] and (bucket / "deep").exists("b.parquet")
    bucket.remove("a")
    assert not bucket.exists("a") and not bucket.is_local
    with pytest.raises(FileNotFoundError):
        bucket.read_bytes("a")


def test_photos_of_two_buckets_behind_two_addresses_are_found_by_one_table(
    s3: ObjectStore, bucket: Folder, tmp_path: Path
) -> None:
    near, far = bucket / "photos", Folder.of(f"{s3.bucket()}/photos{s3.options}")
    near.write_bytes("a.jpg", b"12")
    far.write_bytes("b?.jpg", b"345")
    (tmp_path / "c.jpg").write_bytes(b"6789")
    away = [f"s3://{far.path}/b?.jpg", f"file://{tmp_path}/c.jpg", f"s3://{far.path}/none.jpg"]
    rows = ["path", "photos/a.jpg", *away]
    bucket.write_bytes("list.csv", "\n".join(rows).encode())
    found = list_source(bucket / "list.csv")
    local = f"{tmp_path}/c.jpg".lstrip("/")
    sizes = {photo.image_id: photo.size for photo in found.photos}
    assert sizes == {"photos/a.jpg": 2, f"{far.path}/b?.jpg": 3, local: 4, f"{far.path}/none.jpg": -1}
    assert found.root == bucket


def test_each_bucket_and_each_set_of_options_has_one_connection(s3: ObjectStore) -> None:
    def opened(uri: str) -> pafs.FileSystem:
        return open_address(parse(uri))

    one = opened(f"s3://first/a{s3.options}")
    assert opened(f"s3://first/b/c{s3.options}") is one
    assert opened(f"s3://second/a{s3.options}") is not one
    assert opened(f"s3://first/a{s3.options}&region=eu-west-1").region == "eu-west-1" != one.region  # type: ignore[attr-defined]


def test_a_place_in_the_environment_is_asked_where_the_address_names_none(s3: ObjectStore, bucket: Folder) -> None:
    bucket.write_bytes("there", b"x")
    assert Folder.of(f"{bucket.uri.partition('?')[0]}?force_virtual_addressing=false").read_bytes("there") == b"x"


def test_a_profile_s_keys_are_read_and_a_profile_without_any_is_refused(
    s3: ObjectStore, bucket: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[archive]\naws_access_key_id = k\naws_secret_access_key = s\nregion = eu-north-1\n[sso]\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    bucket.write_bytes("seen", b"y")
    for name in s3.environment:
        monkeypatch.delenv(name)
    made = Folder.of(f"{bucket.uri}&profile=archive")
    assert made.read_bytes("seen") == b"y" and made.fs.region == "eu-north-1"  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="has no profile 'none', only: archive, sso"):
        _ = Folder.of(f"{bucket.uri}&profile=none").fs
    with pytest.raises(ValueError, match="holds no keys. .* set AWS_PROFILE=sso instead"):
        _ = Folder.of(f"{bucket.uri}&profile=sso").fs
    with pytest.raises(ValueError, match="'maybe' is neither true nor false"):
        _ = Folder.of(f"{bucket.uri}&anonymous=maybe").fs


@pytest.mark.parametrize("fault", FAULTS)
def test_a_request_that_fails_now_and_then_is_not_noticed(s3: ObjectStore, bucket: Folder, fault: str) -> None:
    bucket.write_bytes("big", bytes(range(256)) * 40)
    with FaultyProxy(s3.place, seed=3) as proxy:
        proxy.injected.share, proxy.injected.faults, proxy.injected.delay_s = 0.3, (fault,), 0.05
        there = through(proxy, bucket)
        with patience(20):
            assert [there.read_bytes("big") for _ in range(5)] == [bytes(range(256)) * 40] * 5
        assert proxy.injected.seen[fault] >= 1


def test_a_store_that_is_silent_is_waited_for_and_one_that_refuses_the_keys_is_not(
    s3: ObjectStore, bucket: Folder
) -> None:
    bucket.write_bytes("a", b"whole")
    with FaultyProxy(s3.place) as proxy:
        there = through(proxy, bucket)
        proxy.silence(1.0)
        with patience(30):
            assert there.read_bytes("a") == b"whole"
        assert proxy.injected.seen["silent"] >= 1
        proxy.injected.expired = True
        with patience(0.1), pytest.raises(Outage, match="does not accept the credentials, reading .* renewed"):
            there.read_bytes("a")
        proxy.injected.expired = False
        assert there.read_bytes("a") == b"whole"


def test_a_bucket_that_is_not_there_is_not_waited_for(s3: ObjectStore, bucket: Folder) -> None:
    missing = Folder.of(f"s3://not-there/p{s3.options}")
    with pytest.raises(OSError) as caught:
        missing.write_bytes("a", b"x")
    assert kind_of(caught.value) == "address"
    with patience(300), pytest.raises(Outage, match="does not lead anywhere, writing. Make the bucket|NO_SUCH_BUCKET"):
        patiently(lambda: missing.write_bytes("a", b"x"), "writing")


def test_a_small_file_is_one_put_and_a_large_one_that_fails_leaves_the_old(s3: ObjectStore, bucket: Folder) -> None:
    with FaultyProxy(s3.place) as proxy:
        there = through(proxy, bucket)
        publish(there.fs, there.file("a"), lambda file: file.write(b"x" * 100_000), there._puts)
        assert proxy.injected.seen["passed"] == 1
        for size in (1000, SINGLE_PUT + 1, 11 << 20):
            proxy.injected.share, proxy.injected.faults = 1.0, ("503",)
            with pytest.raises(OSError, match="SLOW_DOWN"):
                publish(there.fs, there.file("a"), lambda file, size=size: file.write(b"y" * size), there._puts)
            proxy.injected.share = 0.0
            assert there.read_bytes("a") == b"x" * 100_000
        there.write_bytes("a", b"z" * (11 << 20))
        assert there.list()["a"] == 11 << 20


def test_a_client_that_reads_no_file_is_given_the_keys_that_others_find_in_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "credentials"
    keys = "aws_access_key_id = {0}\naws_secret_access_key = s\n"
    file.write_text(f"[default]\n{keys.format('d')}[archive]\n{keys.format('a')}aws_session_token = t\n[sso]\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    plain, other = parse("s3://bucket/a"), parse("s3://bucket/a?profile=archive")
    archive = {"access_key_id": "a", "secret_access_key": "s", "session_token": "t"}
    assert keys_of(plain) == {"access_key_id": "d", "secret_access_key": "s"}
    assert keys_of(other) == archive
    assert keys_of(parse("gs://bucket/a")) == {}
    monkeypatch.setenv("AWS_PROFILE", "archive")
    assert keys_of(plain) == archive
    monkeypatch.setenv("AWS_PROFILE", "sso")
    assert keys_of(plain) == {}, "its keys come from elsewhere"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "e")
    monkeypatch.setenv("AWS_PROFILE", "archive")
    assert keys_of(plain) == {} and keys_of(other) == archive
