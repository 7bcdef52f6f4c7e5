// People: the groups that were found, to be named, merged and split.

import * as api from "./api.js";
import { announce, at, button, fill, h } from "./dom.js";
import { open, prompt } from "./dialog.js";
import { showDetail } from "./detail.js";
import { personName, plural } from "./format.js";
import { grid, moreButton, rove } from "./grid.js";
import { info } from "./info.js";
import { picture } from "./picture.js";
import { removeLater } from "./remove.js";
import { address, go } from "./route.js";
import { toast } from "./toast.js";

const PAGE = 60;
const root = at("people");
const chosen = new Map(); // person -> Person, those to merge
const picked = new Set(); // image ids, those to split

const link = (person) => address("people", new URLSearchParams(), person);
const title = (one) => personName(one.person, one.name);

/** A small round portrait with a name, as a link. */
export function personChip(one) {
  return h(
    "a",
    { class: "person-chip", href: link(one.person) },
    picture(one.cover[0] ?? api.thumbnail(one.image_ids[0]), ""),
    h("span", {}, title(one)),
    h("small", { class: "muted" }, plural(one.photos, "photo")),
  );
}

export async function show(route) {
  chosen.clear();
  picked.clear();
  return route.id ? showPerson(route.id) : showPeople();
}

// ---- all of them

function personCard(one, onChoose) {
  const cover = h(
    "span",
    { class: "cover", data: { count: String(Math.min(4, one.cover.length)) } },
    one.cover.slice(0, 4).map((address) => picture(address, "")),
  );
  const box = h("input", {
    type: "checkbox",
    checked: chosen.has(one.person),
    "aria-label": `Choose ${title(one)}`,
    on: { change: () => onChoose(one, box.checked) },
  });
  return h(
    "li",
    { class: "person" },
    h(
      "a",
      { href: link(one.person) },
      cover,
      h("span", { class: `name${one.name ? "" : " muted"}` }, title(one)),
      h("span", { class: "muted" }, plural(one.photos, "photo")),
    ),
    h("label", { class: "card-pick" }, box),
  );
}

async function showPeople() {
  const list = h("ul", { class: "grid people" }),
    bar = h("div", { class: "row dock", hidden: true });
  const count = h("p", { class: "muted", role: "status" });
  const more = moreButton(() => load(more.dataset.next));
  const onChoose = (one, yes) => {
    if (yes) chosen.set(one.person, one);
    else chosen.delete(one.person);
    fill(
      bar,
      chosen.size > 0 && [
        h("span", { class: "grow" }, `${plural(chosen.size, "person", "people")} chosen`),
        button("Merge into one", merge, { kind: "primary", disabled: chosen.size < 2 }),
        button("Cancel", () => (chosen.clear(), showPeople())),
      ],
    );
  };
  async function load(after) {
    const page = await api.people({ limit: PAGE, after });
    list.append(...page.people.map((one) => personCard(one, onChoose)));
    more.hidden = page.next === null;
    more.dataset.next = page.next ?? "";
    count.textContent = page.total ? plural(page.total, "person", "people") : "";
    if (!page.total) list.replaceWith(h("p", { class: "empty" }, "No groups were made yet."));
  }
  more.hidden = true;
  fill(root, h("div", { class: "head" }, h("h1", {}, "People"), count), list, more, bar);
  await load("");
}

/** All chosen become the one with a name, else the one with most photos. */
async function merge() {
  const all = [...chosen.values()].sort(
    (one, other) => (other.name !== null) - (one.name !== null) || other.photos - one.photos,
  );
  const [into, ...others] = all;
  const names = new Set(all.map((one) => one.name).filter(Boolean));
  if (
    names.size > 1 &&
    !(await agree(`Merge ${[...names].join(" and ")}?`, `They become one person, ${into.name}.`, "Merge"))
  )
    return;
  for (const one of others) await api.mergePerson(one.person, into.person);
  toast(`Merged into ${title(into)}.`);
  go(link(into.person));
}

async function agree(question, text, action) {
  const box = open(
    question,
    h(
      "div",
      { class: "stack" },
      h("p", {}, text),
      h(
        "div",
        { class: "row end" },
        button("Cancel", () => box.close()),
        button(action, () => box.close(true), { kind: "primary" }),
      ),
    ),
  );
  return box.closed;
}

// ---- one of them

async function showPerson(id) {
  const one = await api.person(id, { limit: PAGE });
  const heading = h("h1", {}, title(one));
  const images = [...one.images];
  const bar = h("div", { class: "row dock", hidden: true });
  const onPick = (image, yes) => {
    if (yes) picked.add(image.image_id);
    else picked.delete(image.image_id);
    fill(
      bar,
      picked.size > 0 && [
        h("span", { class: "grow" }, `${plural(picked.size, "photo")} chosen`),
        button("This is somebody else", split, { kind: "primary", disabled: picked.size === one.photos }),
        info.features.add && button("Delete", () => removeLater([...picked]), { kind: "danger", drawing: "bin" }),
      ],
    );
  };
  const options = {
    onOpen: (image) => showDetail(images, images.indexOf(image), { canDelete: info.features.add }),
    selectable: onPick,
  };
  const list = rove(h("div", {}, grid(images, options, { "aria-label": `Photos of ${title(one)}` })), {
    onDelete: (image) => info.features.add && removeLater([image]),
  });
  const more = moreButton(async () => {
    const page = await api.person(id, { limit: PAGE, after: more.dataset.next });
    images.push(...page.images);
    list.firstChild.append(...grid(page.images, options).children);
    turn(page.next);
  });
  const turn = (next) => ((more.hidden = next === null), (more.dataset.next = next ?? ""));
  const rename = async () => {
    const name = await prompt("Name this person", {
      text: "Name",
      value: one.name ?? "",
      hint: "Empty takes the name away.",
    });
    if (name === null) return;
    await api.namePerson(one.person, name || null);
    one.name = name || null;
    heading.textContent = title(one);
    naming.textContent = one.name ? "Rename" : "Name";
    announce(`Named ${title(one)}.`);
  };
  const naming = button(one.name ? "Rename" : "Name", rename);
  async function split() {
    const { people } = await api.splitPerson(one.person, [...picked]);
    const fresh = people.find((person) => person.person !== one.person);
    toast(
      `${plural(picked.size, "photo")} moved to a person of their own.`,
      fresh ? [["Show", () => go(link(fresh.person))]] : [],
    );
    await show({ id });
  }
  turn(one.next);
  fill(
    root,
    h("a", { href: address("people"), class: "back" }, "All people"),
    h(
      "div",
      { class: "head" },
      heading,
      h("p", { class: "muted" }, plural(one.photos, "photo")),
      naming,
      button("Merge with…", () => mergeWith(one)),
      h(
        "a",
        { class: "button", href: address("search", new URLSearchParams({ image_id: images[0]?.image_id ?? "" })) },
        "More like this",
      ),
    ),
    h(
      "p",
      { id: "pick-help", class: "muted" },
      "Choose the photos that show somebody else to move them to a person of their own.",
    ),
    list,
    more,
    bar,
  );
  list.rove();
}

/** Choose another person from portraits. */
async function mergeWith(one) {
  const { people } = await api.people({ limit: 200 });
  const others = people
    .filter((other) => other.person !== one.person)
    .sort((a, b) => (b.name !== null) - (a.name !== null));
  const list = h("ul", { class: "strip wrap" });
  const find = h("input", {
    type: "search",
    "aria-label": "Find a person",
    placeholder: "Find a person",
    on: { input: () => draw(find.value.toLowerCase()) },
  });
  const draw = (text) =>
    list.replaceChildren(
      ...others
        .filter((other) => title(other).toLowerCase().includes(text))
        .map((other) =>
          h(
            "li",
            {},
            h(
              "button",
              { type: "button", class: "person-chip", on: { click: () => box.close(other) } },
              picture(other.cover[0] ?? "", ""),
              h("span", {}, title(other)),
              h("small", { class: "muted" }, plural(other.photos, "photo")),
            ),
          ),
        ),
    );
  draw("");
  const box = open(`Who is ${title(one)} as well?`, h("div", { class: "stack" }, find, list));
  const other = await box.closed;
  if (!other) return;
  const [from, into] = one.name && !other.name ? [other, one] : [one, other]; // a name stays
  await api.mergePerson(from.person, into.person);
  toast(`Merged into ${title(into)}.`);
  go(link(into.person));
}
