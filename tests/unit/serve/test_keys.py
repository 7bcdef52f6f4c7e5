"""Keys: shown once, hashed at rest, revoked by name; and the command."""

import fcntl
import hashlib
import json
import multiprocessing
from pathlib import Path

import pytest

from retrieval.artifacts.folder import Folder
from serve.keys import FILE, PREFIX, ROLES, Key, create, find, main, read_keys, revoke


def test_a_key_is_long_random_and_stored_as_its_hash(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    one, two = create(folder, "shop", "search", 60), create(folder, "boss", "admin")
    assert one.startswith(PREFIX)
    assert len(one) >= len(PREFIX) + 43  # 256 bits in base 64
    assert one != two
    stored = (tmp_path / FILE).read_text()
    assert one not in stored
    assert one.removeprefix(PREFIX) not in stored
    assert hashlib.sha256(one.encode()).hexdigest() in stored


def test_a_key_is_found_until_it_is_revoked(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    assert read_keys(folder) is None
    token = create(folder, "shop", "write", 60)
    keys = read_keys(folder)
    assert keys is not None
    key = find(keys, token)
    assert key is not None
    assert (key.name, key.role, key.per_minute, key.revoked) == ("shop", "write", 60, None)
    for wrong in ("", token[:-1], token + "x", token.upper(), "\udcff"):
        assert find(keys, wrong) is None
    revoke(folder, "shop")
    after = read_keys(folder)
    assert after is not None
    assert find(after, token) is None
    assert after[0].revoked is not None, "it was made, and that is kept: without any, all would be open"
    again = create(folder, "shop", "search")
    assert find(read_keys(folder) or (), again) is not None


def test_a_name_is_given_to_one_good_key(tmp_path: Path) -> None:
    folder = Folder.of(tmp_path)
    create(folder, "shop", "search")
    with pytest.raises(ValueError, match="There is a key named 'shop'"):
        create(folder, "shop", "admin")
    with pytest.raises(ValueError, match="no key named 'shopp'. Good keys: shop"):
        revoke(folder, "shopp")


@pytest.mark.parametrize("bad", [{"role": "root"}, {"name": ""}, {"name": "a\nb"}, {"per_minute": 0}])
def test_what_makes_no_sense_is_refused(bad: dict[str, object]) -> None:
    fine: dict[str, object] = {"name": "shop", "role": "search", "sha256": "00"}
    with pytest.raises(ValueError):
        Key(**{**fine, **bad})  # type: ignore[arg-type]


def test_each_role_may_do_what_those_before_it_may() -> None:
    may = {a: [b for b in ROLES if Key(name="x", role=a, sha256="").may(b)] for a in ROLES}
    assert may == {"search": ["search"], "write": ["search", "write"], "admin": ["search", "write", "admin"]}


@pytest.mark.parametrize("text", ["", "[]", '{"keys": [{"name": "a"}]}', '{"keys": 3}', '{"keys": [{"name": "a", "ro'])
def test_a_damaged_file_is_no_open_door(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(ValueError, match="damaged"):
        read_keys(Folder.of(tmp_path))
    with pytest.raises(ValueError, match="damaged"):
        create(Folder.of(tmp_path), "shop", "search")
    assert (tmp_path / FILE).read_text() == text


def _create(folder: str) -> None:
    create(Folder.of(folder), "shop", "search")


def test_who_makes_a_key_waits_for_whoever_makes_another(tmp_path: Path) -> None:
    other = multiprocessing.get_context("spawn").Process(target=_create, args=(str(tmp_path),))
    with (tmp_path / f".{FILE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other.start()
        other.join(5)
        assert other.is_alive() and read_keys(Folder.of(tmp_path)) is None
    other.join(60)
    assert len(read_keys(Folder.of(tmp_path)) or ()) == 1


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--workspace", str(tmp_path)]
    main(["list", *where])
    assert "No key was made" in capsys.readouterr().out
    main(["create", *where, "--name", "shop", "--role", "search", "--per-minute", "600"])
    token = capsys.readouterr().out.splitlines()[0]
    assert find(read_keys(Folder.of(tmp_path)) or (), token) is not None
    main(["list", *where])
    said = capsys.readouterr().out
    assert token not in said
    assert all(word in said for word in ("shop", "search", "600"))
    main(["revoke", *where, "--name", "shop"])
    assert find(read_keys(Folder.of(tmp_path)) or (), token) is None
    with pytest.raises(SystemExit, match="no key named"):
        main(["revoke", *where, "--name", "shop"])
    with pytest.raises(SystemExit, match="is no folder"):
        main(["create", "--workspace", str(tmp_path / "gone"), "--name", "a", "--role", "search"])
    assert json.loads((tmp_path / FILE).read_text())["keys"][0]["name"] == "shop"
