// Photos that are there more than once, side by side, to keep one.

import * as api from "./api.js";
import { at, button, fill, h } from "./dom.js";
import { fileOf, percent, plural } from "./format.js";
import { moreButton, similar } from "./grid.js";
import { info } from "./info.js";
import { picture } from "./picture.js";
import { isAway, removeLater } from "./remove.js";

const PAGE = 40;
const root = at("duplicates");

function copy(imageId, thumbnail, first) {
  const here = thumbnail !== null; // a copy byte for byte is not in the index: there is nothing to delete here
  const shown = here
    ? picture(thumbnail, imageId)
    : h("span", { class: "card-photo absent" }, "same file, not stored twice");
  const acts = h(
    "span",
    { class: "row" },
    here && h("a", { href: similar(imageId) }, "Search"),
    here &&
      info.features.add &&
      button("Delete", () => removeLater([imageId]), { kind: "quiet danger", label: `Delete ${fileOf(imageId)}` }),
  );
  const made = h(
    "li",
    { class: "copy", data: { id: imageId } },
    shown,
    h("span", { class: "line", title: imageId }, fileOf(imageId)),
    h("span", { class: "muted line" }, first ? "first" : imageId.slice(0, -fileOf(imageId).length)),
    acts,
  );
  made.hidden = isAway(imageId);
  return made;
}

function group(one) {
  const likeness = one.how === "same file" ? "" : `, ${percent(one.likeness)} alike`;
  return h(
    "li",
    { class: "panel" },
    h("h2", {}, `${plural(one.image_ids.length, "photo")}: ${one.how}${likeness}`),
    h(
      "ul",
      { class: "copies" },
      one.image_ids.map((id, at) => copy(id, one.thumbnails[at], at === 0)),
    ),
  );
}

export async function show() {
  const list = h("ul", { class: "groups" }),
    count = h("p", { class: "muted", role: "status" });
  const more = moreButton(() => load(more.dataset.next));
  async function load(after) {
    const page = await api.duplicates({ limit: PAGE, after });
    list.append(...page.groups.map(group));
    more.hidden = page.next === null;
    more.dataset.next = page.next ?? "";
    const total = page.total ?? page.groups.length;
    count.textContent = total ? plural(total, "picture") : "";
    if (!total) list.replaceWith(h("p", { class: "empty" }, "No photo is there twice."));
  }
  more.hidden = true;
  fill(root, h("div", { class: "head" }, h("h1", {}, "Duplicates"), count), list, more);
  await load("");
}

document.addEventListener("removal", ({ detail: { imageIds, hidden } }) => {
  for (const one of root.querySelectorAll(".copy")) if (imageIds.includes(one.dataset.id)) one.hidden = hidden;
});
