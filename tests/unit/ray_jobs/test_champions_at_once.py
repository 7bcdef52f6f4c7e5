"""Runs that end together cannot leave the worse model as champion, whatever the order of their calls."""

from __future__ import annotations

import functools
import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ray_jobs.runtime.tracking import registry
from ray_jobs.runtime.tracking.registry import CHAMPION, crown, promote


class Version:
    def __init__(self, version: int, tags: dict[str, str]) -> None:
        self.version, self.tags = str(version), tags


class Model:
    def __init__(self, aliases: dict[str, str], tags: dict[str, str]) -> None:
        self.aliases, self.tags = aliases, tags


class Turns:
    """Lets one of several threads do its next call, drawn by chance, and nothing happens at the same time."""

    def __init__(self, seed: int) -> None:
        self._rng, self._changed = random.Random(seed), threading.Condition()
        self._waiting: set[int] = set()
        self._alive, self._next = 0, 0

    def wait(self) -> None:
        me = threading.get_ident()
        with self._changed:
            self._waiting.add(me)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._next == me)
            self._next = 0
            self._waiting.remove(me)

    def run(self, *works: Callable[[], object]) -> None:
        threads = [threading.Thread(target=self._one, args=(work,), daemon=True) for work in works]
        self._alive = len(threads)
        for thread in threads:
            thread.start()
        with self._changed:
            while self._alive:
                self._changed.wait_for(lambda: not self._next and len(self._waiting) == self._alive)
                if self._waiting:
                    self._next = self._rng.choice(sorted(self._waiting))
                    self._changed.notify_all()

    def _one(self, work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()


class Registry:
    """MLflow's calls on one model, each whole by itself."""

    def __init__(self, turns: Turns | None = None) -> None:
        self.versions: dict[str, Version] = {}
        self.model, self.turns = Model({}, {}), turns

    def _turn(self) -> None:
        if self.turns is not None:
            self.turns.wait()

    def add(self, value: float, measured_on: str = "data") -> Version:
        self._turn()
        made = Version(len(self.versions) + 1, {"metric": "mAP", "value": repr(value), "measured_on": measured_on})
        self.versions[made.version] = made
        return Version(int(made.version), dict(made.tags))

    def get_registered_model(self, name: str) -> Model:
        self._turn()
        return Model(dict(self.model.aliases), dict(self.model.tags))

    def get_model_version(self, name: str, version: str) -> Version:
        self._turn()
        return Version(int(version), dict(self.versions[version].tags))

    def search_model_versions(self, query: str) -> list[Version]:
        self._turn()
        return [Version(int(one.version), dict(one.tags)) for one in self.versions.values()]

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self._turn()
        self.versions[version].tags[key] = value

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._turn()
        self.model.aliases[alias] = version

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self._turn()
        self.model.tags[key] = value

    def offer(self, value: float, measured_on: str = "data") -> tuple[bool, str]:
        return crown(self, "faces", self.add(value, measured_on))  # type: ignore[arg-type]

    @property
    def champion(self) -> float:
        return float(self.versions[self.model.aliases[CHAMPION]].tags["value"])


@pytest.fixture(autouse=True)
def _no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are turns here: in as many of them every other run gets on."""
    monkeypatch.setattr(registry, "_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(registry, "_LOOKS", 50)


def champion_after(values: tuple[float, ...], seed: int, legacy: bool = False) -> float:
    """Of runs that end together with these values, on top of a champion of 0.5."""
    found = Registry()
    found.offer(0.5)
    if legacy:  # a registry of before there were eras
        found.versions["1"].tags.pop("era")
        found.model.tags.clear()
    found.turns = Turns(seed)
    found.turns.run(*(functools.partial(found.offer, value) for value in values))
    return found.champion


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("values", [(0.7, 0.6), (0.6, 0.8, 0.7), (0.55, 0.6, 0.65, 0.7)], ids=str)
def test_the_best_is_champion_in_the_end(values: tuple[float, ...], legacy: bool) -> None:
    assert {champion_after(values, seed, legacy) for seed in range(60)} == {max(values)}


def test_without_the_second_look_the_worse_is_champion_at_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the test above can see it."""

    def once(client: Any, name: str, era: str) -> Any:
        best: Any = registry._best_of(client, name, era)
        client.set_registered_model_alias(name, CHAMPION, best.version)
        return best

    monkeypatch.setattr(registry, "_seat_best", once)
    assert any(champion_after((0.7, 0.6), seed) == 0.6 for seed in range(2000))


def test_a_choice_by_hand_between_two_runs_holds_unless_it_is_beaten(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(60):
        found = Registry()
        monkeypatch.setattr(registry, "client_of", lambda uri, found=found: found)
        found.offer(0.5)
        found.offer(0.9)
        found.turns = Turns(seed)
        by_hand = functools.partial(promote, "sqlite:///x", "faces", "1")
        found.turns.run(by_hand, functools.partial(found.offer, 0.4), functools.partial(found.offer, 0.45))
        assert found.champion in (0.5, 0.9) and found.model.aliases[CHAMPION] == "1", f"seed {seed}"


def test_the_one_that_lost_is_told_so() -> None:
    found = Registry()
    found.offer(0.5)
    better: list[tuple[bool, str]] = []
    honest = registry.compare

    def while_it_compares(version: Any, champion: Any) -> tuple[bool, str]:
        """Another run ends between this one's look at the champion and its taking the place."""
        said = honest(version, champion)
        if not better and version.tags["value"] == "0.6":
            better.append((True, ""))
            better[0] = found.offer(0.7)
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "compare", while_it_compares)
        crowned, reason = found.offer(0.6)
    assert better[0][0] and not crowned and found.champion == 0.7
    said = (
        "champion is version 1: mAP 0.6000 beats 0.5000, but version 3 ended at the same time: mAP 0.7000 beats 0.6000"
    )
    assert reason == said


def test_a_champion_chosen_by_hand_is_not_undone_by_an_older_and_better_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Registry()
    found.offer(0.5)
    found.offer(0.7)
    monkeypatch.setattr(registry, "client_of", lambda uri: found)
    promote("sqlite:///x", "faces", "1")
    assert found.champion == 0.5
    assert found.offer(0.6)[0] and found.champion == 0.6


def test_an_alias_moved_on_mlflow_s_own_page_is_not_undone_either() -> None:
    found = Registry()
    found.offer(0.5)
    found.offer(0.7)
    found.set_registered_model_alias("faces", CHAMPION, "1")
    assert found.offer(0.6)[0] and found.champion == 0.6


def test_what_does_not_compare_does_not_take_the_place() -> None:
    found = Registry()
    found.offer(0.5)
    assert found.offer(0.9, "other data")[0] is False and found.champion == 0.5
