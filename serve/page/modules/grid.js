// Photos in rows: cards, one of which the Tab key reaches; arrow keys go to the others.

import { button, h, icon } from "./dom.js";
import * as api from "./api.js";
import { fileOf, nameOf, percent, score } from "./format.js";
import { picture } from "./picture.js";
import { isAway } from "./remove.js";
import { address } from "./route.js";

export const similar = (imageId) => address("search", new URLSearchParams({ image_id: imageId }));

function likeness(image) {
  if (image.score === undefined) return null;
  const share = image.probability ?? image.score;
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  bar.append(h("span", { style: { width: `${Math.round(100 * Math.min(1, Math.max(0, share)))}%` } }));
  const inliers = image.inliers === null || image.inliers === undefined ? null : `${image.inliers} points`;
  const probability =
    image.probability === null
      ? null
      : h("b", { title: "Probability that it shows the same, if half of all pairs did" }, percent(image.probability));
  const cosine = h(
    probability ? "span" : "b",
    { title: "Similarity: cosine of the two embeddings, 1 is the same photo", class: "score" },
    score(image.score),
  );
  const points = inliers && h("span", { class: "muted" }, inliers);
  return [bar, h("span", { class: "line figures" }, probability ? [probability, points ?? cosine] : [cosine, points])];
}

function spoken(image) {
  const parts = [nameOf(image)];
  if (image.rank) parts.unshift(`Result ${image.rank}`);
  if (image.probability !== null && image.probability !== undefined)
    parts.push(`probability ${percent(image.probability)}`);
  if (image.score !== undefined) parts.push(`score ${score(image.score)}`);
  return [...parts, image.image_id].join(", ");
}

/** One photo. `onOpen` is called with it; `selectable` puts a check box on it. */
export function card(image, { onOpen, selectable = null, like = true } = {}) {
  const name = nameOf(image),
    file = fileOf(image.image_id);
  const main = h(
    "button",
    {
      class: "card-main",
      type: "button",
      tabindex: "-1",
      "aria-label": spoken(image),
      on: { click: () => onOpen(image) },
    },
    picture(image.thumbnail ?? api.thumbnail(image.image_id), "", { class: "card-photo" }),
    h(
      "span",
      { class: "card-text" },
      likeness(image),
      h("span", { class: "line name" }, name),
      name !== file && h("span", { class: "line muted file", title: image.image_id }, file),
    ),
  );
  const made = h("li", { class: "card", data: { id: image.image_id } }, main);
  if (like)
    made.append(
      h(
        "a",
        {
          class: "card-like",
          href: similar(image.image_id),
          tabindex: "-1",
          title: "More like this",
          "aria-label": `More like ${file}`,
        },
        icon("search"),
      ),
    );
  if (selectable) {
    const box = h("input", {
      type: "checkbox",
      tabindex: "-1",
      "aria-label": `Select ${file}`,
      on: { change: () => selectable(image, box.checked) },
    });
    made.append(h("label", { class: "card-pick" }, box));
  }
  made.hidden = isAway(image.image_id);
  return made;
}

export function grid(images, options, attributes = {}) {
  return h(
    "ol",
    { class: "grid", "aria-describedby": "grid-help", ...attributes },
    images.map((one) => card(one, options)),
  );
}

/** While photos are on their way. */
export function skeleton(count) {
  return h(
    "ol",
    { class: "grid loading", "aria-hidden": "true" },
    Array.from({ length: count }, () => h("li", { class: "card" }, h("span", { class: "card-photo" }))),
  );
}

const shown = (root) =>
  [...root.querySelectorAll(".card:not([hidden])")].filter((one) => one.querySelector(".card-main"));

function setStop(root, card) {
  for (const one of root.querySelectorAll('.card [tabindex="0"]')) one.tabIndex = -1;
  card?.querySelectorAll(".card-main, .card-like, .card-pick input").forEach((one) => (one.tabIndex = 0));
}

/** The card in the row above or below that is nearest. */
function beside(cards, from, down) {
  const place = (one) => one.getBoundingClientRect();
  const here = place(from),
    middle = here.left + here.width / 2;
  const beyond = cards.filter((one) => (down ? place(one).top > here.top + 4 : place(one).top < here.top - 4));
  if (!beyond.length) return null;
  const tops = beyond.map((one) => place(one).top);
  const row = down ? Math.min(...tops) : Math.max(...tops);
  const off = (one) => Math.abs(place(one).left + place(one).width / 2 - middle);
  return beyond
    .filter((one) => Math.abs(place(one).top - row) < 4)
    .reduce((best, one) => (off(one) < off(best) ? one : best));
}

function target(cards, from, key) {
  const at = cards.indexOf(from);
  if (key === "ArrowRight") return cards[at + 1];
  if (key === "ArrowLeft") return cards[at - 1];
  if (key === "Home") return cards[0];
  if (key === "End") return cards.at(-1);
  return key === "ArrowDown" || key === "ArrowUp" ? beside(cards, from, key === "ArrowDown") : null;
}

/** Make the grids in `root` one stop of the Tab key. Call `root.rove()` after the cards were replaced. */
export function rove(root, { onDelete = null } = {}) {
  root.addEventListener("focusin", (event) => {
    const card = event.target.closest(".card");
    if (card) setStop(root, card);
  });
  root.addEventListener("keydown", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    const to = target(shown(root), card, event.key);
    if (to) {
      event.preventDefault();
      to.querySelector(".card-main").focus();
    } else if (event.key === "Delete" && onDelete) onDelete(card.dataset.id);
  });
  document.addEventListener("removal", ({ detail: { imageIds, hidden } }) => {
    const had = document.activeElement?.closest(".card");
    const at = shown(root).indexOf(had);
    for (const one of root.querySelectorAll(".card")) if (imageIds.includes(one.dataset.id)) one.hidden = hidden;
    const left = shown(root);
    if (had?.hidden && root.contains(had)) left[Math.min(at, left.length - 1)]?.querySelector(".card-main").focus();
    else if (!root.querySelector('.card:not([hidden]) [tabindex="0"]')) setStop(root, left[0]);
  });
  root.rove = () => setStop(root, shown(root)[0]);
  return root;
}

export function moreButton(action) {
  return button("Show more", action, { kind: "wide" });
}
