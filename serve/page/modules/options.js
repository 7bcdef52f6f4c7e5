// The fields beside the photo: how to search, and where. What they say is in the address; they only write it.

import * as api from "./api.js";
import { at, field, h, refill, select } from "./dom.js";
import { label, percent, personName, rate } from "./format.js";
import { hasProbabilities, info, rates, usualFar } from "./info.js";

export const USUAL_K = 20;
const K = [5, 10, 20, 50, 100],
  EXPAND = [0, 3, 5, 10, 20, 50],
  RERANK = [0, 20, 50, 100],
  PROBABLE = [0.5, 0.9, 0.99];

const upTo = (choices, most) => choices.filter((one) => one <= most);
const sorted = (choices) => [...new Set(choices)].sort((one, other) => one - other);

/** Write one choice into the address; the usual one is not written. */
function writes(change, name, usual) {
  return {
    on: {
      change: (event) =>
        change((params) =>
          event.target.value === String(usual) ? params.delete(name) : params.set(name, event.target.value),
        ),
    },
  };
}

function chosen(params, name, usual) {
  return params.get(name) ?? String(usual);
}

export function showOptions(params, change) {
  const { features, limits, defaults } = info;
  const words = params.has("text"); // they have no geometry, and their scores no probability
  const one = (name, text, choices, usual, hint = null) =>
    choices.length > 1 &&
    field(text, select(choices, chosen(params, name, usual), { name, ...writes(change, name, usual) }), hint);
  const k = Math.min(USUAL_K, limits.max_k);
  const far = rates().map((known) => [
    known.far,
    known.threshold === null ? `${rate(known.far)} (not promised)` : rate(known.far),
  ]);
  const expands = sorted([...upTo(EXPAND, limits.max_expand), defaults.expand]).map((num) => [
    num,
    num ? `${num} nearest` : "off",
  ]);
  const usualRerank = defaults.rerank ?? 0;
  const reranks = sorted([...upTo(RERANK, limits.max_rerank ?? 100), usualRerank]).map((num) => [
    num,
    num ? `first ${num}` : "off",
  ]);
  refill(
    at("option-fields"),
    one(
      "k",
      "Results",
      sorted([...upTo(K, limits.max_k), k]).map((num) => [num, num]),
      k,
    ),
    one("far", "False matches allowed", far, usualFar()),
    !words &&
      hasProbabilities() &&
      one(
        "min_probability",
        "Show only",
        [["", "all results"], ...PROBABLE.map((value) => [value, `${percent(value)} or more probable`])],
        "",
      ),
    features.expand &&
      one("expand", "Expand with the nearest", expands, defaults.expand, "Searches again with what was found"),
    !words && features.rerank && one("rerank", "Check the geometry", reranks, usualRerank, "Shows the points that match"),
  );
  at("options").hidden = at("option-fields").hidden;
}

function text(params, change, name, title, hint) {
  const write = (event) =>
    change((next) => {
      next.delete(name);
      event.target.value
        .split(",")
        .map((one) => one.trim())
        .filter(Boolean)
        .forEach((one) => next.append(name, one));
    });
  return field(
    title,
    h("input", {
      name,
      value: params.getAll(name).join(", "),
      autocomplete: "off",
      spellcheck: "false",
      placeholder: hint,
      on: { change: write },
    }),
  );
}

function time(params, change, name, title) {
  const write = (event) =>
    change((next) => (event.target.value ? next.set(name, event.target.value) : next.delete(name)));
  return field(
    title,
    h("input", { type: "datetime-local", name, value: params.get(name) ?? "", on: { change: write } }),
  );
}

function attribute(params, change, name) {
  const now =
    params
      .getAll("attribute")
      .find((one) => one.startsWith(`${name}:`))
      ?.slice(name.length + 1) ?? "";
  const write = (event) =>
    change((next) => {
      if (now) next.delete("attribute", `${name}:${now}`);
      if (event.target.value) next.append("attribute", `${name}:${event.target.value}`);
    });
  return field(
    label(name),
    select(
      [
        ["", "any"],
        ["1", "yes"],
        ["-1", "no"],
      ],
      now,
      { name: `is ${name}`, on: { change: write } },
    ),
  );
}

function person(params, change) {
  const now = params.get("person") ?? "";
  const list = select([["", "anybody"], ...(now ? [[now, personName(now, null)]] : [])], now, {
    name: "person",
    ...writes(change, "person", ""),
  });
  const load = async () => {
    const { people } = await api.people({ limit: 200 }).catch(() => ({ people: [] }));
    const named = people.sort((one, other) => (other.name !== null) - (one.name !== null));
    for (const one of named)
      if (String(one.person) !== now)
        list.append(new Option(`${personName(one.person, one.name)} (${one.photos})`, one.person));
  };
  list.addEventListener("focus", load, { once: true });
  list.addEventListener("pointerdown", load, { once: true });
  return field("Person", list);
}

export function showFilters(params, change) {
  const { features } = info;
  const attributes = features.attributes.map((name) => attribute(params, change, name));
  refill(
    at("filter-fields"),
    text(params, change, "label", "Label", "one or several, with commas"),
    features.people && person(params, change),
    text(params, change, "folder", "Folder", "2024/summer"),
    text(params, change, "split", "Split", "train, val, test"),
    features.add && time(params, change, "after", "Added after"),
    features.add && time(params, change, "before", "Added before"),
    attributes.length > 0 &&
      h(
        "details",
        { class: "attributes", open: params.has("attribute") },
        h("summary", {}, "Attributes"),
        h("div", { class: "fields" }, attributes),
      ),
  );
}
