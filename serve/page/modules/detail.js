// One photo, large: beside what was asked with, with the points that match, and what can be done with it.

import { button, fill, h, svg } from "./dom.js";
import * as api from "./api.js";
import { open } from "./dialog.js";
import { fileOf, label, number, percent, personName, plural, score, when } from "./format.js";
import { similar } from "./grid.js";
import { picture } from "./picture.js";
import { removeLabel, removeLater } from "./remove.js";
import { address } from "./route.js";

const MOST_LINES = 80; // more are a carpet

function rows(image, info) {
  const known = { ...info, ...image };
  const pairs = [
    ["Probability", known.probability !== null && known.probability !== undefined && percent(known.probability)],
    ["Score", known.score !== undefined && score(known.score)],
    ["Matched points", known.inliers !== null && known.inliers !== undefined && number(known.inliers)],
    ["Label", known.label !== null && known.label !== undefined && label(known.label)],
    [
      "Person",
      known.person !== null &&
        known.person !== undefined &&
        h(
          "a",
          { href: address("people", new URLSearchParams(), known.person) },
          personName(known.person, known.person_name),
        ),
    ],
    ["Split", known.split],
    ["Added", known.added && when(known.added)],
    ["Face", known.face !== null && known.face !== undefined && `${known.face + 1} of ${known.photo}`],
    ["Name", known.image_id],
  ];
  const said = Object.entries(info?.attributes ?? {})
    .filter(([, value]) => value === 1)
    .map(([name]) => label(name));
  if (said.length) pairs.push(["Attributes", said.join(", ")]);
  return pairs.filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
}

/** Lines from each matched point of the left picture to its point of the right. */
function drawMatches(pair, matches) {
  const overlay = svg("svg", { class: "matches", "aria-hidden": "true" });
  const [left, right] = pair.querySelectorAll("img");
  const draw = () => {
    if (!left.naturalWidth || !right.naturalWidth) return;
    const frame = pair.getBoundingClientRect();
    overlay.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    const at = (image, x, y) => {
      const box = image.getBoundingClientRect();
      return [
        box.left - frame.left + (x / image.naturalWidth) * box.width,
        box.top - frame.top + (y / image.naturalHeight) * box.height,
      ];
    };
    const step = Math.max(1, matches.length / MOST_LINES);
    const lines = [];
    for (let one = 0; one < matches.length; one += step) {
      const [qx, qy, rx, ry] = matches[Math.floor(one)];
      const [x1, y1] = at(left, qx, qy),
        [x2, y2] = at(right, rx, ry);
      lines.push(
        svg("line", { x1, y1, x2, y2 }),
        svg("circle", { cx: x1, cy: y1, r: 2.5 }),
        svg("circle", { cx: x2, cy: y2, r: 2.5 }),
      );
    }
    overlay.replaceChildren(...lines);
  };
  pair.append(overlay);
  for (const image of [left, right]) image.addEventListener("load", draw);
  new ResizeObserver(draw).observe(pair);
}

function actions(image, info, { canDelete, refine, close }) {
  const then = (act) => () => (close(), act());
  const known = { ...info, ...image };
  return [
    h("a", { class: "button primary", href: similar(image.image_id), on: { click: close } }, "More like this"),
    refine &&
      button(
        "Like this too",
        then(() => refine("like", image.image_id)),
      ),
    refine &&
      button(
        "Not like this",
        then(() => refine("unlike", image.image_id)),
      ),
    info?.original && button("Original", () => showOriginal(image)),
    canDelete &&
      button(
        "Delete",
        then(() => removeLater([image.image_id])),
        { kind: "danger", drawing: "bin" },
      ),
    canDelete &&
      known.label !== null &&
      known.label !== undefined &&
      button(
        "Delete all of this label",
        then(() => removeLabel(known.label)),
        { kind: "quiet danger" },
      ),
  ];
}

async function showOriginal(image) {
  const place = h("div", { class: "original stack" }, h("p", { class: "muted", role: "status" }, "Loading…"));
  const box = open("Original", place);
  try {
    const blob = await (await api.request(api.original(image.image_id))).blob();
    const url = URL.createObjectURL(new Blob([blob])); // without a type: the browser looks at the bytes
    const file = h("a", { class: "button", href: url, download: fileOf(image.image_id) }, "Save");
    fill(place, h("img", { src: url, alt: `The photo as it was added: ${image.image_id}` }), file);
    await box.closed;
    URL.revokeObjectURL(url);
  } catch (error) {
    place.textContent = error.message;
  }
}

/**
 * Open one of `images`. `queryPicture` makes the picture asked with (null: none), `refine` adds to a query of stored
 * photos (null: there is none).
 */
export function showDetail(images, start, { queryPicture = null, canDelete = false, refine = null } = {}) {
  const pair = h("div", { class: "pair" }),
    facts = h("dl", { class: "facts" }),
    acts = h("div", { class: "row" });
  const place = h("p", { class: "muted", role: "status" });
  const back = button("", () => show(at - 1), { kind: "quiet icon-button", drawing: "left", label: "Photo before" });
  const on = button("", () => show(at + 1), { kind: "quiet icon-button", drawing: "right", label: "Next photo" });
  const turn = h("div", { class: "row" }, back, place, on);
  const box = open(
    "Photo",
    h("div", { class: "detail" }, pair, h("div", { class: "detail-side" }, images.length > 1 && turn, facts, acts)),
  );
  box.element.classList.add("large");
  let at = -1;

  async function show(index) {
    if (index < 0 || index >= images.length) return;
    at = index;
    const image = images[at];
    back.disabled = at === 0;
    on.disabled = at === images.length - 1;
    place.textContent = `${number(at + 1)} of ${plural(images.length, "photo")}`;
    box.element.querySelector("h2").textContent = image.rank ? `Result ${image.rank}` : "Photo";
    const asked = queryPicture?.(image);
    const figure = (content, text) => h("figure", {}, content, h("figcaption", { class: "muted" }, text));
    const found = picture(image.thumbnail ?? api.thumbnail(image.image_id), image.image_id);
    pair.replaceChildren(...(asked ? [figure(asked, "Asked with")] : []), figure(found, asked ? "Found" : ""));
    pair.classList.toggle("two", Boolean(asked));
    if (asked && image.matches?.length && pair.querySelectorAll("img").length === 2) drawMatches(pair, image.matches);
    const draw = (info) => {
      fill(facts, rows(image, info));
      fill(acts, actions(image, info, { canDelete, refine, close: () => box.close() }));
    };
    draw(null);
    const info = await api.image(image.image_id).catch(() => null); // what is known beside is no must
    if (info && at === index) draw(info);
  }

  box.element.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") show(at - 1);
    if (event.key === "ArrowRight") show(at + 1);
  });
  facts.addEventListener("click", (event) => event.target.closest("a") && box.close());
  show(start);
  return box;
}
