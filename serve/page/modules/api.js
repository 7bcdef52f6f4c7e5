// Talking to the server: one place for refusals, keys and patience.

const KEY = "image-search-key";
const PATIENCE = 3; // times that a full server is asked again, as long as it says to wait
const LONGEST_WAIT_S = 20;
const RETRIED = new Set([429, 503]);

/** What the server refused. `reason` is for programs, `message` for people. */
export class Refused extends Error {
  constructor(message, reason = "no-answer", status = 0) {
    super(message);
    this.reason = reason;
    this.status = status;
  }
}

let askForKey = async () => null;
let keyAsked = null; // one question, however many requests wait for it
let waiting = () => {};

/** Who is told when a key is needed (returns whether one was given), and that a full server made a request wait. */
export function whenAsked({ key, wait }) {
  askForKey = key;
  waiting = wait;
}

export const key = () => sessionStorage.getItem(KEY);

export function keepKey(text) {
  if (text) sessionStorage.setItem(KEY, text);
  else sessionStorage.removeItem(KEY);
}

const headersWith = (more) => ({ ...(key() ? { Authorization: `Bearer ${key()}` } : {}), ...more });

async function once(path, options) {
  try {
    return await fetch(path, { ...options, headers: headersWith(options.headers) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server did not answer. Is it still running?");
  }
}

async function refusal(response) {
  let error = null;
  try {
    error = (await response.json()).error;
  } catch (failure) {
    if (failure.name === "AbortError") throw failure; // else not JSON: a proxy in between answered
  }
  const message = error?.message ?? `The server answered ${response.status}.`;
  const wait = response.headers.get("Retry-After");
  return new Refused(wait ? `${message} It will take about ${wait} s.` : message, error?.reason, response.status);
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    const done = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => (clearTimeout(done), reject(new DOMException("stopped", "AbortError"))));
  });
}

async function newKey() {
  keyAsked ??= askForKey().finally(() => (keyAsked = null));
  return keyAsked;
}

/** The response to a request that was answered with success. Raises: Refused; AbortError. */
export async function request(path, options = {}) {
  for (let tries = 0; ; tries++) {
    const used = key();
    const response = await once(path, options);
    if (response.ok || response.status === 304) return response;
    if (response.status === 401 && (key() !== used || (await newKey()))) continue;
    const wait = Number(response.headers.get("Retry-After"));
    if (!RETRIED.has(response.status) || !wait || wait > LONGEST_WAIT_S || tries >= PATIENCE)
      throw await refusal(response);
    waiting(wait);
    await sleep(wait, options.signal);
  }
}

export async function ask(path, options) {
  return (await request(path, options)).json();
}

const json = (body, method = "POST") => ({
  method,
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

function query(params) {
  const given = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

const form = (parts) => {
  const made = new FormData();
  for (const [name, value, file] of parts)
    file === undefined ? made.append(name, value) : made.append(name, value, file);
  return { method: "POST", body: made };
};

const optionsPart = (options) => [
  "options",
  new Blob([JSON.stringify(options)], { type: "application/json" }),
  "options.json",
];
const imagePath = (imageId) => `v1/images/${encodeURIComponent(imageId)}`;

export const info = () => ask("v1/info");
export const search = (options, signal) => ask("v1/search", { ...json(options), signal });
export const searchPhoto = (photo, options, signal) =>
  ask("v1/search", { ...form([["photo", photo, photo.name || "photo"], optionsPart(options)]), signal });
export const faces = (photo, signal) =>
  ask("v1/faces", {
    method: "POST",
    headers: { "Content-Type": photo.type || "application/octet-stream" },
    body: photo,
    signal,
  });
export const verify = (first, second, far, signal) =>
  ask(`v1/verify${query({ far })}`, {
    ...form([
      ["first", first, "first"],
      ["second", second, "second"],
    ]),
    signal,
  });
export const images = (params, signal) => ask(`v1/images${query(params)}`, { signal });
export const image = (imageId, signal) => ask(imagePath(imageId), { signal });
export const original = (imageId) => `${imagePath(imageId)}/original`;
export const thumbnail = (imageId) => `${imagePath(imageId)}/thumbnail`;
export const remove = (imageId) => ask(imagePath(imageId), { method: "DELETE" });
export const removeLabel = (label) => ask(`v1/images${query({ label })}`, { method: "DELETE" });
export const add = (photos, options, params, signal) =>
  ask(`v1/images${query(params)}`, {
    ...form([...photos.map(({ file, imageId }) => ["photo", file, imageId]), optionsPart(options)]),
    signal,
  });
export const people = (params, signal) => ask(`v1/people${query(params)}`, { signal });
export const person = (id, params, signal) => ask(`v1/people/${id}${query(params)}`, { signal });
export const namePerson = (id, name) => ask(`v1/people/${id}/name`, json({ name }));
export const mergePerson = (id, into) => ask(`v1/people/${id}/merge`, json({ into }));
export const splitPerson = (id, imageIds) => ask(`v1/people/${id}/split`, json({ image_ids: imageIds }));
export const duplicates = (params, signal) => ask(`v1/duplicates${query(params)}`, { signal });
