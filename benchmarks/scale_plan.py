"""What it takes to put 1 million to 1 billion photos through the road of faces, as tables.

    python benchmarks/scale_plan.py
    python benchmarks/scale_plan.py --photos 30000000 --hours 8 --node.cores 48 --node.memory 96e9 --node.price 2.04
    python benchmarks/scale_plan.py --lists --part 2048 --megapixels 12 --source-bytes 3e6

By scale_model.py, of the unit costs in scale_costs.toml. Prices are settings. docs/explanation/scale.md holds what the
first command prints (`--page docs/explanation/scale.md` puts it there).
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.scale_costs import COSTS, Collection, Costs, Step, read_costs, worth
from benchmarks.scale_model import GB, Break, Node, Outcome, Store, at, breaks, road

SIZES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000)


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is asked. Prices: Amazon's list for us-east-1, on demand, see docs/explanation/scale.md."""

    photos: tuple[int, ...] = SIZES
    """Of each collection."""
    hours: float = 24.0
    """In which all that divides shall be done, and which nothing that does not divide may exceed."""
    lists: bool = False
    """An inverted file of four times the root of the photos' number; otherwise the index is exact."""
    part: int = 256
    """Photos of a part: ingest --part-size."""
    asked: int = 100_000
    """Photos that an evaluation asks with: evaluate --max-queries; 0: all."""
    megapixels: float = 0.04
    """Of a source photo."""
    source_bytes: float = 10e3
    """Of a source photo."""
    node: Node = field(default_factory=Node)
    """The machines."""
    store: Store = field(default_factory=Store)
    """Where the workspace is."""
    costs: str = str(COSTS)
    """The file of unit costs."""
    page: str = ""
    """Put the tables into this page, each after the comment that names it, instead of printing them."""

    def like(self, photos: int = 1) -> Collection:
        """A collection of this kind."""
        of = Collection(
            photos=photos, part=self.part, asked=self.asked, megapixels=self.megapixels, lists=int(self.lists)
        )
        return at(of, photos)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float) -> str:
    """Two digits that count, or whole thousands: 0.012, 3.4, 120, 56,000."""
    if value >= 99.5:
        digits = len(f"{value:.0f}") - 2
        return f"{round(value, -digits):,.0f}"
    return f"{value:.2g}"


def amount(value: float) -> str:
    """Bytes."""
    for name, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= size:
            return f"{number(value / size)} {name}"
    return f"{number(value)} B"


def seconds(value: float) -> str:
    for name, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{number(value / size)} {name}"
    return f"{number(value / 1e-9)} ns"


OF_PLACES = ("reconstruct",)
"""Steps that the road of faces has not."""
WORDS = {"assigned": "vector and list", "trained": "vector and list, a round", "visit": "vector looked at"}


def unit_costs(costs: Costs) -> str:
    """A row a step."""

    def told(of: Step, kind: str, say: Callable[[float], str]) -> str:
        known = getattr(of, kind).items()
        return ", ".join(f"{say(cost)} a {WORDS.get(term, term)}" for term, cost in known)

    kinds = (("seconds", seconds), ("stored", amount), ("read", amount), ("held", amount))
    head = ("step", "runs on", "processor time", "left on storage", "read from it", "memory asked for")
    where = {"core": "one core", "node": "one node", "nodes": "all nodes, in parts"}
    return table(
        head,
        [
            (_named(step.name), where[step.place], *(told(step, kind, say) for kind, say in kinds))
            for step in costs.steps.values()
        ],
    )


def broken(found: Sequence[Break], photos: int) -> list[str]:
    """Steps that break at so many photos, the first first, each once."""
    return list(dict.fromkeys(one.step for one in found if one.photos <= photos))


def sizes(costs: Costs, cfg: Config) -> str:
    """A row a size: hours and money of the steps that do not break, and those that do."""
    found = breaks(costs, cfg.like(), cfg.node, cfg.hours)
    head = ("photos", "nodes", "hours", "node hours", "$", "stored", "$ a month", "breaks")
    rows = []
    for num in cfg.photos:
        of = cfg.like(num)
        away = [name for name in broken(found, num) if name not in OF_PLACES]
        made = road(costs, of, cfg.node, cfg.hours, cfg.source_bytes, without=away)
        rows.append((f"{num:,}", *row(made, of, cfg), ", ".join(away) or "nothing"))
    return table(head, rows)


def row(made: Sequence[Outcome], of: Collection, cfg: Config) -> tuple[str, ...]:
    node_hours, stored = sum(one.node_hours for one in made), sum(one.stored for one in made)
    files = sum(one.step.tasks(of) for one in made if one.stored)
    money = node_hours * cfg.node.price + files * cfg.store.put
    wall, month = sum(one.hours for one in made), stored / GB * cfg.store.month
    nodes = max(one.nodes for one in made)
    return (f"{nodes:,}", number(wall), number(node_hours), number(money), amount(stored), number(month))


def steps(costs: Costs, cfg: Config, photos: int) -> str:
    """A row a step, at one size, also of those that break."""
    found = breaks(costs, cfg.like(), cfg.node, cfg.hours)
    away = broken(found, photos)
    whole, made = (
        road(costs, cfg.like(photos), cfg.node, cfg.hours, cfg.source_bytes, without) for without in ((), away)
    )
    kept = {one.step.name: one for one in made}
    head = ("step", "nodes", "hours", "node hours", "memory asked for", "")
    return table(
        head,
        [
            (
                one.step.name,
                f"{one.nodes:,}",
                number(one.hours),
                number(one.node_hours),
                amount(one.held) if one.held else "",
                "" if one.step.name in kept else "breaks",
            )
            for one in (kept.get(each.step.name, each) for each in whole)
        ],
    )


def breaking(costs: Costs, cfg: Config) -> str:
    """A row for each break up to a thousand billion photos, the first first."""
    found = breaks(costs, cfg.like(), cfg.node, cfg.hours)
    return table(
        ("from so many photos", "breaks", "by more than", "against it"),
        [(number(one.photos), _named(one.step), one.what, one.instead) for one in found],
    )


def _named(step: str) -> str:
    return f"{step} (places)" if step in OF_PLACES else step


def service(costs: Costs, cfg: Config) -> str:
    """A row a size: an exact index in memory, in parts on as many nodes as it needs, and a query of it."""
    serve, query = costs.steps["service"], costs.steps["query"]
    rows = []
    for num in cfg.photos:
        of = Collection(photos=num)
        held = worth(serve.held, of)
        nodes = -(-int(held) // int(0.8 * cfg.node.memory))
        took = query.work(of)
        month = nodes * cfg.node.price * 730
        rows.append((f"{num:,}", amount(held), f"{nodes:,}", number(month), seconds(took), seconds(took / nodes)))
    head = ("photos", "memory", "nodes", "$ a month", "a query, one core", "a query, its parts side by side")
    return table(head, rows)


def tables(costs: Costs, cfg: Config) -> dict[str, str]:
    """Name -> table, in order of the page."""
    listed = dataclasses.replace(cfg, lists=True)
    large = dataclasses.replace(listed, megapixels=12.0, source_bytes=3e6)
    return {
        "unit costs": unit_costs(costs),
        "an exact index": sizes(costs, cfg),
        "an inverted file": sizes(costs, listed),
        "photos of 12 megapixels, an inverted file": sizes(costs, large),
        "what breaks": breaking(costs, listed),
        "steps at 100,000,000, an inverted file": steps(costs, listed, 100_000_000),
        "service": service(costs, cfg),
    }


def put(page: str, made: Mapping[str, str]) -> str:
    """The page with these tables, each in place of the one after its comment.

    Raises: ValueError if a table has no comment there, or a comment no table.
    """
    named = re.findall(r"^<!-- table: (.+) -->$", page, flags=re.MULTILINE)
    if sorted(named) != sorted(made):
        raise ValueError(
            f"The page names the tables {named}, expected each of {list(made)} once, as <!-- table: NAME -->."
        )
    return re.sub(
        r"^<!-- table: (.+) -->\n\n(?:\|.*\n)*",
        lambda found: f"<!-- table: {found[1]} -->\n\n{made[found[1]]}\n",
        page,
        flags=re.MULTILINE,
    )


def main(cfg: Config) -> None:
    costs = read_costs(Path(cfg.costs))
    if cfg.page:
        page = Path(cfg.page)
        page.write_text(put(page.read_text(), tables(costs, cfg)))
        return
    print(f"Unit costs of {costs.measured}: {costs.machine}")
    for name, told in tables(costs, cfg).items():
        print(f"\n{name}\n\n{told}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
