"""The model of cost: it loses no work, breaks where its formula says, refuses costs that are none, makes the tables."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale_plan
from benchmarks.scale_costs import JOBS, Collection, Costs, Step, read_costs
from benchmarks.scale_measure import asked_for, fit
from benchmarks.scale_model import Node, at, breaks, lists_for, nodes_for, outcome, play, road, steps_of

ROOT = Path(__file__).resolve().parents[2]
COSTS = read_costs()
NODE = Node()


def step(name: str, place: str, seconds: dict[str, float], **more: dict[str, float]) -> Step:
    costs = {"stored": {}, "read": {}, "held": {}, **more}
    return Step(name=name, place=place, command="none", seconds=seconds, instead="more", **costs)


def simple(**changed: Step) -> Costs:
    """Nothing costs anything but what is given."""
    free = {name: step(name, "core", {}) for job in JOBS.values() for name in job}
    return Costs(machine="none", measured="2026-11-30", dispatch=0.0, pace=1.0, steps=free | changed)


# ---- work is not lost ----


@pytest.mark.parametrize("lists", [0, 1])
@pytest.mark.parametrize("photos", [1000, 1_000_000, 100_000_000])
def test_twice_the_photos_cost_no_less(photos: int, lists: int) -> None:
    once, twice = (at(Collection(photos=1, lists=lists), num) for num in (photos, 2 * photos))
    for one in COSTS.steps.values():
        assert one.work(twice) >= one.work(once), one.name
    for few, many in zip(*(road(COSTS, of, NODE, 24, 10e3) for of in (once, twice)), strict=True):
        assert many.stored >= few.stored and many.held >= few.held
        assert many.step == few.step and many.node_hours >= 0.95 * few.node_hours, few.step.name


@pytest.mark.parametrize("photos", [5_000, 1_000_000, 1_000_000_000])
def test_nodes_times_hours_hold_all_the_work(photos: int) -> None:
    of = at(Collection(photos=1, lists=1), photos)
    for one in road(COSTS, of, NODE, 24, 10e3):
        cores = 1 if one.step.place == "core" else NODE.cores
        assert one.node_hours * 3600 * cores >= 0.98 * one.step.work(of), one.step.name
        assert one.hours * one.nodes == pytest.approx(one.node_hours)


def test_nodes_are_the_fewest_that_do_what_divides_in_time() -> None:
    costs = simple(ingest=step("ingest", "nodes", {"photo": 1.0}), plan=step("plan", "core", {"photo": 9.0}))
    of = Collection(photos=16 * 3600 * 24 * 3)
    assert nodes_for(costs, of, NODE, 24) == 3
    assert nodes_for(costs, dataclasses.replace(of, photos=of.photos + 1), NODE, 24) == 4
    assert nodes_for(costs, Collection(photos=1), NODE, 24) == 1


# ---- parts that are played out ----


def test_parts_take_what_the_formula_says_while_they_are_many() -> None:
    assert play(5000, 2.0, 10, start=30) == pytest.approx(30 + 5000 * 2 / 10, rel=0.02)


def test_few_parts_take_as_long_as_the_longest() -> None:
    assert 2.0 < play(10, 2.0, 1000) <= 3.0


def test_workers_wait_for_a_slow_driver_and_for_the_storage() -> None:
    assert play(5000, 2.0, 1000, dispatch=0.01) == pytest.approx(5000 * 0.01, rel=0.1)
    assert play(5000, 2.0, 1000, transfer=0.02) == pytest.approx(5000 * 0.02, rel=0.05)


@pytest.mark.parametrize("how", [{}, {"dispatch": 0.02}, {"transfer": 0.05}])
def test_rounds_that_are_skipped_take_as_long_as_those_that_are_played(
    how: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = play(60_000, 1.0, 100, **how)
    monkeypatch.setattr("benchmarks.scale_model._PLAYED", 10**9)
    assert short == pytest.approx(play(60_000, 1.0, 100, **how), rel=0.02)


def test_a_step_on_nodes_reads_and_writes_through_the_storage() -> None:
    light = step("ingest", "nodes", {"photo": 1e-6})
    of, node = Collection(photos=256_000), Node(start=0, bandwidth=1e6)
    assert outcome(light, of, node, 2, 0.0, moved=1000).hours * 3600 == pytest.approx(128, rel=0.02)


# ---- what breaks ----


def test_memory_is_broken_at_the_size_that_the_formula_says() -> None:
    costs = simple(merge=step("merge", "core", {}, held={"run": 2e9, "photo": 6000.0}))
    (found,) = breaks(costs, Collection(photos=1), NODE, 24)
    assert found.photos == int((32e9 - 2e9) / 6000) + 1
    assert (found.step, found.what, found.instead) == ("merge", "32 GB of memory", "more")


def test_time_is_broken_by_what_does_not_divide_alone() -> None:
    costs = simple(
        plan=step("plan", "core", {"photo": 1.0}),
        train=step("train", "node", {"photo": 1.0}),
        embed=step("embed", "nodes", {"photo": 1.0}),
    )
    found = [(one.step, one.photos) for one in breaks(costs, Collection(photos=1), NODE, 24)]
    assert found == [("plan", 86_401), ("train", 16 * 86_400 + 1)]


def test_lists_make_a_search_cheaper_than_all_pairs() -> None:
    exact, listed = (at(Collection(photos=1, lists=lists), 10**8).amounts for lists in (0, 1))
    assert exact["visit"] == 1e16 and exact["assigned"] == 0
    assert listed["visit"] == pytest.approx(1e8 * (1e8 * 16 / 40_000 + 40_000))
    assert lists_for(10**8) == 40_000


def test_an_evaluation_asks_with_no_more_than_it_is_told() -> None:
    some, all_ = (Collection(photos=10**6, asked=asked).amounts for asked in (1000, 0))
    assert (some["query"], some["pair"]) == (1000, 1e9)
    assert (all_["query"], all_["pair"]) == (1e6, 1e12)


def test_a_collection_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="photos is 0"):
        Collection(photos=0)


# ---- the file ----


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (ROOT / "benchmarks/scale_costs.toml").read_text()
    assert old in text
    path = tmp_path / "costs.toml"
    path.write_text(text.replace(old, new, 1))
    return path


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('place = "core"', 'place = "moon"', "runs on 'moon', expected one of core, node, nodes"),
        ("photo = ", "foto = ", "of a 'foto', expected one of run, part, photo"),
        ("photo = ", "photo = -", "expected a number of 0 or more"),
        ("photo = ", "photo = nan #", "is not TOML"),
        ("dispatch", "dispatched", "has no 'dispatch'"),
        ("[steps.embed]", "[steps.embedded]", "has no step embed"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_costs(changed(tmp_path, old, new))


def test_a_file_that_is_not_there_is_refused_with_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no .*scale_measure.py"):
        read_costs(tmp_path / "none.toml")


def test_every_cost_has_its_command() -> None:
    for one in COSTS.steps.values():
        script = one.command.removeprefix("python ").split()[0]
        assert (ROOT / script).exists(), f"{one.name}: {one.command}"


def test_memory_is_what_the_jobs_ask_for(tmp_path: Path) -> None:
    """By their own numbers: where one changes, python benchmarks/scale_measure.py --folder W --memory-only."""
    asked = asked_for(tmp_path, COSTS.steps["service"].held["photo"], COSTS.steps["driver"].held["part"])
    for name, held in asked.items():
        assert COSTS.steps[name].held == pytest.approx(held, rel=1e-3), name


# ---- the fit ----


def test_the_fit_finds_the_costs_that_made_its_figures_and_none_below_nothing() -> None:
    sizes = [Collection(photos=num, part=part) for num, part in ((100, 10), (400, 10), (100, 50), (900, 30))]
    seen = [(of, 3.0 + 0.5 * of.amounts["part"] + 0.01 * of.photos) for of in sizes]
    assert fit(("run", "part", "photo"), seen) == pytest.approx({"run": 3.0, "part": 0.5, "photo": 0.01}, rel=1e-3)
    falling = [(of, 5.0 - 0.001 * of.photos) for of in sizes]
    assert all(cost >= 0 for cost in fit(("run", "photo"), falling).values())


# ---- tables ----


def test_the_tables_of_the_page_are_what_the_model_says() -> None:
    page = (ROOT / "docs/explanation/scale.md").read_text()
    made = scale_plan.put(page, scale_plan.tables(COSTS, scale_plan.Config()))
    assert made == page, "python benchmarks/scale_plan.py --page docs/explanation/scale.md"


def test_a_table_goes_where_it_is_named_and_nowhere_else() -> None:
    page = "a\n\n<!-- table: x -->\n\n| old |\n| --- |\n\nb\n"
    assert scale_plan.put(page, {"x": "| new |"}) == "a\n\n<!-- table: x -->\n\n| new |\n\nb\n"
    with pytest.raises(ValueError, match="expected each of"):
        scale_plan.put(page, {"x": "| new |", "y": "| new |"})


def test_money_is_node_hours_by_their_price_and_files_by_theirs() -> None:
    ingest = step("ingest", "nodes", {"photo": 1.0}, stored={"photo": 1000.0})
    cfg = scale_plan.Config(photos=(16 * 3600,), node=Node(start=0, price=2.0))
    (line,) = scale_plan.sizes(simple(ingest=ingest), cfg).splitlines()[2:]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:2] == ["57,600", "1"]
    hours, node_hours, money = (float(cell) for cell in cells[2:5])
    assert hours == node_hours == pytest.approx(1.0, abs=0.11) and money == pytest.approx(2 * hours, abs=0.11)
    assert cells[5:] == ["58 MB", "0.0013", "nothing"]


def test_what_breaks_is_named_and_its_hours_are_not_counted() -> None:
    costs = simple(
        embed=step("embed", "nodes", {"photo": 1.0}),
        merge=step("merge", "core", {"photo": 100.0}, held={"photo": 1e6}),
    )
    (line,) = scale_plan.sizes(costs, scale_plan.Config(photos=(100_000,))).splitlines()[2:]
    assert line.endswith("| merge |") and float(line.split("|")[3]) < 24


@pytest.mark.parametrize(("value", "said"), [(0.0123, "0.012"), (99.6, "100"), (1234, "1,200"), (56_789, "57,000")])
def test_numbers_have_two_digits_that_count(value: float, said: str) -> None:
    assert scale_plan.number(value) == said


def test_steps_of_the_road_are_those_of_the_jobs() -> None:
    assert [one.name for one in steps_of(COSTS)] == [name for job in JOBS.values() for name in job]
    assert np.isclose(COSTS.job("embed", Collection(photos=512)), COSTS.steps["embed"].work(Collection(photos=512)))
