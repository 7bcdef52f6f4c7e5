// The address says what is shown: a search can be sent to somebody, and Back goes back.

const VIEWS = new Set(["search", "photo", "compare", "people", "duplicates", "add"]);

/** `#/people/4?k=10` -> { view: "people", id: "4", params }; an address of nothing is the search. */
export function read(hash = location.hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const [view, id = ""] = (path || "search").split("/", 2);
  const known = VIEWS.has(view) && hash.startsWith("#/");
  return { view: known ? view : "search", id: known ? id : "", params: new URLSearchParams(known ? search : "") };
}

export function address(view, params = new URLSearchParams(), id = "") {
  const search = String(params);
  return `#/${view === "search" && !search ? "" : view}${id === "" ? "" : `/${id}`}${search ? `?${search}` : ""}`;
}

/** Go there; the same address again is shown again. */
export function go(to) {
  if (location.hash === to) window.dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = to;
}

/** The same view with other options: no step for Back. */
export function replace(to) {
  history.replaceState(null, "", to);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

const MANY = ["label", "split", "person", "folder"];
const TIMES = { after: "added_after", before: "added_before" };

/** The Filter of an address, or null: label, split, person, folder (each any number of times), attribute, after, before. */
export function readFilter(params) {
  const filter = {};
  for (const name of MANY) if (params.has(name)) filter[name] = params.getAll(name);
  if (filter.person) filter.person = filter.person.map(Number).filter(Number.isInteger);
  for (const one of params.getAll("attribute")) {
    const [, name, value] = one.match(/^(.+):(-1|0|1)$/) ?? [];
    if (name) filter.attributes = { ...filter.attributes, [name]: Number(value) };
  }
  for (const [short, name] of Object.entries(TIMES)) {
    const time = new Date(params.get(short) ?? "");
    if (!Number.isNaN(time.getTime())) filter[name] = time.toISOString();
  }
  return Object.keys(filter).length ? filter : null;
}

export const FILTERS = [...MANY, "attribute", ...Object.keys(TIMES)];
const NUMBERS = ["k", "far", "min_score", "min_probability", "expand", "rerank"];

/** The SearchOptions of an address, without what is searched with. */
export function readOptions(params) {
  const options = {};
  for (const name of NUMBERS) {
    const value = Number(params.get(name));
    if (params.get(name) && Number.isFinite(value)) options[name] = value;
  }
  const filter = readFilter(params);
  return filter ? { ...options, filter } : options;
}

/** Without a photo from outside: image_id, or several with weights 1 (like) and -1 (unlike), or text; null: nothing. */
export function readQuery(params) {
  const text = params.get("text")?.trim();
  if (text) return { text };
  const first = params.get("image_id");
  if (!first) return null;
  const more = [...params.getAll("like").map((one) => [one, 1]), ...params.getAll("unlike").map((one) => [one, -1])];
  if (!more.length) return { image_id: first };
  return { image_ids: [[first, 1], ...more].map(([image_id, weight]) => ({ image_id, weight })) };
}
