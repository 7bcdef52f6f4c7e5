// What came back, besides photos: the decision, what the gallery was narrowed to, and where the time went.

import { at, button, fill, h, icon } from "./dom.js";
import { label, milliseconds, nameOf, number, personName, rate, score, short, when } from "./format.js";
import { info } from "./info.js";
import { FILTERS } from "./route.js";

const NOBODY = { people: "Nobody here matches", places: "No place here matches" };

function verdict(decision, results) {
  if (decision.answer === "match") return ["yes", "Match: ", results.length ? nameOf(results[0]) : "found"];
  if (decision.answer === "nobody") return ["no", NOBODY[info.kind], ""];
  return ["doubt", "The scores cannot tell whether this is a match", ""];
}

function reason(decision) {
  const said = [];
  if (decision.answer === "nobody" && decision.threshold !== null)
    said.push(`No photo scores ${score(decision.threshold)} or more.`);
  if (decision.why)
    said.push(`${decision.why[0].toUpperCase()}${decision.why.slice(1)}${/[.!?]$/.test(decision.why) ? "" : "."}`);
  if (decision.threshold !== null && !decision.promised)
    said.push("This threshold was not measured to keep that rate.");
  return said.join(" ");
}

/** Whether the first result is who or what was looked for. */
export function showDecision(decision, results) {
  const place = at("decision");
  if (!decision) return fill(place);
  const [sign, text, name] = verdict(decision, results);
  place.dataset.answer = decision.answer.replace(" ", "-");
  return fill(
    place,
    icon(sign),
    h("div", {}, h("strong", {}, text, name), h("p", { class: "muted" }, reason(decision))),
  );
}

const CHIP = {
  label: (value) => `label ${label(value)}`,
  split: (value) => `split ${value}`,
  person: (value) => personName(value, null),
  folder: (value) => `folder ${value}`,
  attribute: (value) => attributeText(value),
  after: (value) => `added after ${when(value)}`,
  before: (value) => `added before ${when(value)}`,
};

function attributeText(value) {
  const [, name, is] = value.match(/^(.+):(-1|0|1)$/) ?? [null, value, "1"];
  return { 1: label(name), [-1]: `not ${label(name)}`, 0: `${label(name)} unknown` }[is];
}

/** What the gallery is narrowed to; each can be taken away. */
export function showChips(params, change) {
  const chips = FILTERS.flatMap((name) =>
    params.getAll(name).map((value) => {
      const text = CHIP[name](value);
      return button(text, () => change((next) => next.delete(name, value)), {
        kind: "chip",
        drawing: "close",
        label: `Without ${text}`,
      });
    }),
  );
  fill(at("chips"), chips.length ? [h("span", { class: "muted" }, "Only"), chips] : []);
  at("filter-count").textContent = number(chips.length);
  at("filter-count").hidden = !chips.length;
}

const STAGES = [
  ["upload", "Upload"],
  ["prepare", "Find and cut"],
  ["embed", "Embed"],
  ["search", "Search"],
  ["rerank", "Geometry"],
];

function stages(seconds) {
  const spent = STAGES.map(([name, text]) => [name, text, seconds[name] ?? 0]).filter(([, , one]) => one > 0);
  const rest = seconds.total - spent.reduce((sum, [, , one]) => sum + one, 0);
  return rest > 0.0005 ? [...spent, ["rest", "Other", rest]] : spent;
}

/** Who answered, and how long each stage took. `roundTrip`: seconds until the page had the answer. */
export function showFacts(answer, roundTrip) {
  const place = at("facts");
  place.hidden = !answer;
  if (!answer) return;
  const spent = stages(answer.seconds);
  const whole = spent.reduce((sum, [, , one]) => sum + one, 0);
  const bar = h(
    "div",
    { class: "stages", "aria-hidden": "true" },
    spent.map(([name, , one]) => h("span", { class: name, style: { "flex-grow": String(one / whole) } })),
  );
  const model = info.model;
  const pair = (name, value, kind = null) => value && [h("dt", { class: kind }, name), h("dd", {}, value)];
  const times = spent.map(([name, text, one]) => pair(text, milliseconds(one), `step ${name}`));
  const facts = [
    pair("In all", milliseconds(answer.seconds.total)),
    pair("Until it was here", milliseconds(roundTrip)),
    pair("Searched", `${number(answer.searched)} photos`),
    answer.query && pair("Photo", `${number(answer.query.width)} × ${number(answer.query.height)} px`),
    answer.expansion && pair("Expanded with", `${answer.expansion.num} nearest, alpha ${answer.expansion.alpha}`),
    pair("False matches", rate(answer.decision.far)),
    pair("Model", [model.name, short(answer.model)].filter(Boolean).join(" ")),
    pair("Index", short(answer.index)),
    pair("Version", `${answer.version}${answer.live ? `, change ${number(answer.live)}` : ""}`),
  ];
  fill(at("fact-list"), bar, h("dl", { class: "facts" }, times, facts.filter(Boolean)));
}
