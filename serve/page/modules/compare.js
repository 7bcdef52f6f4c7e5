// Compare two photos: do they show the same?

import * as api from "./api.js";
import { announce, at, button, fill, h, icon, select } from "./dom.js";
import { bytes, percent, rate, score } from "./format.js";
import { info, rates, usualFar } from "./info.js";
import { Stage } from "./stage.js";

const root = at("compare");
const sides = []; // { file, stage, take }
let running = null;

const WORDS = {
  people: { same: "The same person", different: "Different people" },
  places: { same: "The same place", different: "Different places" },
};
const SIGNS = { same: "yes", different: "no", "cannot tell": "doubt" };

function side(name) {
  const file = h("input", {
    type: "file",
    accept: "image/*",
    class: "unseen",
    tabindex: "-1",
    "aria-label": `${name} photo`,
    on: { change: () => (one.take(file.files[0]), (file.value = "")) },
  });
  const choose = button(`Choose the ${name.toLowerCase()} photo`, () => file.click(), { kind: "primary" });
  const place = h("div", { class: "stage", hidden: true });
  const invite = h(
    "div",
    { class: "invite" },
    h("strong", {}, `${name} photo`),
    h("span", { class: "muted" }, "drop it here, or paste it"),
    choose,
  );
  const about = h("p", { class: "muted" });
  const drop = h("div", { class: "drop" }, invite, place, file);
  const another = button("Another", () => file.click(), { kind: "quiet" });
  another.hidden = true;
  const element = h("div", { class: "side" }, drop, h("div", { class: "row" }, about, another));
  const one = {
    element,
    about,
    stage: new Stage(place),
    file: null,
    async take(given) {
      if (!given) return;
      if (given.type && !given.type.startsWith("image/")) return complain(`“${given.name}” is not an image.`);
      one.file = given;
      about.textContent = `${given.name || "pasted photo"} · ${bytes(given.size)}`;
      another.hidden = false;
      drop.classList.add("filled");
      invite.hidden = true;
      fill(verdict);
      await one.stage.show(URL.createObjectURL(given), `${name} photo`);
      await compareBoth();
    },
  };
  return one;
}

const verdict = h("div", { class: "decision", hidden: true });
let far = null;

function complain(message) {
  at("error").textContent = message;
  at("error").hidden = false;
}

export function show() {
  if (sides.length) return;
  sides.push(side("First"), side("Second"));
  const known = rates().map((one) => one.far);
  far =
    known.length > 1 &&
    select(
      known.map((one) => [one, rate(one)]),
      usualFar(),
      { on: { change: () => compareBoth() } },
    );
  fill(
    root,
    h(
      "div",
      { class: "head" },
      h("h1", {}, "Compare two photos"),
      far && h("label", { class: "inline" }, "False matches allowed", far),
    ),
    h(
      "div",
      { class: "sides" },
      sides.map((one) => one.element),
    ),
    verdict,
  );
}

async function compareBoth() {
  if (!sides.every((one) => one.file)) return;
  running?.abort();
  const mine = (running = new AbortController());
  at("error").hidden = true;
  root.setAttribute("aria-busy", "true");
  fill(verdict, h("p", {}, "Comparing…"));
  verdict.dataset.answer = "";
  try {
    const said = await api.verify(sides[0].file, sides[1].file, far ? Number(far.value) : usualFar(), mine.signal);
    showVerdict(said);
  } catch (error) {
    if (error.name === "AbortError") return;
    fill(verdict);
    complain(error.message);
  } finally {
    if (running === mine) root.removeAttribute("aria-busy");
  }
}

function showVerdict(said) {
  const text = WORDS[info.kind][said.answer] ?? "The scores cannot tell";
  const figures = [
    said.probability !== null && `probability ${percent(said.probability)}`,
    said.score !== null && `score ${score(said.score)}`,
    said.threshold !== null && `threshold ${score(said.threshold)}`,
  ].filter(Boolean);
  verdict.dataset.answer = { same: "match", different: "nobody" }[said.answer] ?? "cannot-tell";
  fill(
    verdict,
    icon(SIGNS[said.answer]),
    h("div", {}, h("strong", {}, text), h("p", {}, figures.join(" · ")), h("p", { class: "muted" }, said.why)),
  );
  for (const [one, seen] of [
    [sides[0], said.first],
    [sides[1], said.second],
  ]) {
    one.stage.faces(
      seen && info.kind === "people"
        ? [{ number: 0, box: seen.box, usable: true, text: "The face that was compared" }]
        : [],
      0,
      () => {},
    );
  }
  announce(`${text}. ${figures.join(", ")}`);
}

/** A pasted photo goes to the side that has none. */
export function take(file) {
  (sides.find((one) => !one.file) ?? sides[1]).take(file);
}

export function drop(data, event) {
  const files = [...data.files];
  const onto = sides.find((one) => one.element.contains(event.target));
  if (files.length > 1) files.slice(0, 2).forEach((file, at) => sides[at].take(file));
  else if (onto) onto.take(files[0]);
  else if (files.length) take(files[0]);
}
