// The query page: one photo in, ranked images out. Text from the data set is always inserted as text, never as HTML.
"use strict";

const CHOICES_OF_K = [5, 10, 20, 50, 100];
const CHOICES_OF_EXPAND = [0, 3, 5, 10, 20, 50];
const at = (id) => document.getElementById(id);
const page = Object.fromEntries(
  ["about", "again", "answers", "box", "caption", "drop", "empty", "error", "expand", "expansion", "facts", "file",
    "form", "k", "overlay", "photo", "results", "stage", "status"].map((id) => [id, at(id)]),
);

let limits = null; // what the server said in /info
let photo = null; // the File or Blob searched with
let running = null; // AbortController of the search under way

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function showError(message) {
  page.error.textContent = message ?? "";
  page.error.hidden = !message;
}

function number(value) {
  return value.toLocaleString("en");
}

function bytes(value) {
  return value < 1 << 20 ? `${Math.max(1, Math.round(value / 1024))} KB` : `${(value / (1 << 20)).toFixed(1)} MB`;
}

// ---- talking to the server

class Refused extends Error {}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server did not answer. Is it still running?");
  }
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error; // else not JSON: a proxy in between answered, handled below
  }
  if (response.ok && body) return body;
  let message = body?.error?.message ?? `The server answered ${response.status}.`;
  const wait = response.headers.get("Retry-After");
  if (wait) message += ` (in about ${wait} s)`;
  throw new Refused(message);
}

async function loadInfo() {
  try {
    const info = await ask("info");
    limits = info.limits;
    const kind = info.model.crop === "fit" ? "places" : "people"; // whole photos, or faces cut out
    const of = info.index.num_identities ? ` of ${number(info.index.num_identities)} ${kind}` : "";
    page.about.textContent = `Searches ${number(info.index.num_images)} stored photos${of}.`;
    offerK(limits.max_k);
    if (info.index.vectors !== "none") offerExpansion(limits.max_expand, info.defaults.expand);
  } catch (error) {
    showError(error.message);
  }
}

function offerK(maximum) {
  const choices = CHOICES_OF_K.filter((k) => k <= maximum);
  if (!choices.length) choices.push(maximum);
  page.k.replaceChildren(...choices.map((k) => new Option(k, k, k === 10, k === 10)));
}

function offerExpansion(maximum, usual) {
  const choices = [...new Set([...CHOICES_OF_EXPAND, usual])].filter((num) => num <= maximum).sort((a, b) => a - b);
  page.expand.replaceChildren(...choices.map((num) => new Option(num || "off", num, num === usual, num === usual)));
  page.expansion.hidden = choices.length < 2;
}

async function search() {
  if (!photo) return;
  running?.abort();
  const mine = new AbortController();
  running = mine;
  const sent = photo;
  page.answers.setAttribute("aria-busy", "true");
  page.status.textContent = "Searching…";
  showError(null);
  const started = performance.now();
  try {
    const asked = new URLSearchParams({ k: page.k.value });
    if (page.expand.value) asked.set("expand", page.expand.value);
    const answer = await ask(`search?${asked}`, {
      method: "POST",
      headers: { "Content-Type": sent.type || "application/octet-stream" },
      body: sent,
      signal: mine.signal,
    });
    showAnswer(answer, (performance.now() - started) / 1000);
  } catch (error) {
    if (error.name === "AbortError") return; // a newer search took over
    clearAnswer();
    page.empty.hidden = true;
    showError(error instanceof Refused ? error.message : `The page failed: ${error.message}`);
  } finally {
    if (running === mine) {
      running = null;
      page.answers.setAttribute("aria-busy", "false");
    }
  }
}

// ---- the query photo

function take(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) {
    showError(`“${file.name || "This"}” is not an image.`);
    return;
  }
  if (limits && file.size > limits.max_body_bytes) {
    showError(`The photo has ${bytes(file.size)}; this server takes up to ${bytes(limits.max_body_bytes)}.`);
    return;
  }
  photo = file;
  page.box.setAttribute("hidden", "");
  URL.revokeObjectURL(page.photo.src);
  page.photo.src = URL.createObjectURL(file);
  page.stage.hidden = false;
  fitPhoto();
  page.drop.classList.add("filled");
  page.caption.textContent = `${file.name || "pasted image"} · ${bytes(file.size)}`;
  page.caption.hidden = false;
  page.again.disabled = false;
  search();
}

async function fitPhoto() {
  try {
    await page.photo.decode();
  } catch {
    if (page.photo.complete && !page.photo.naturalWidth) showNoPhoto();
    return; // else a newer photo took its place
  }
  // As large as the panel allows, small photos too, at most 360 pixels high.
  page.stage.style.width = `min(100%, ${(360 * page.photo.naturalWidth) / page.photo.naturalHeight}px)`;
}

function showNoPhoto() {
  // A format that this browser cannot show; the server may know it all the same.
  page.stage.hidden = true;
  page.drop.classList.remove("filled");
}

function drawBox(query) {
  const [x1, y1, x2, y2] = query.box;
  page.overlay.setAttribute("viewBox", `0 0 ${query.width} ${query.height}`);
  page.overlay.setAttribute("preserveAspectRatio", "none");
  // The box may reach outside the photo; what lies outside is not seen.
  const left = Math.max(x1, 0), top = Math.max(y1, 0);
  const right = Math.min(x2, query.width), bottom = Math.min(y2, query.height);
  const place = { x: left, y: top, width: right - left, height: bottom - top };
  for (const [name, value] of Object.entries(place)) page.box.setAttribute(name, value);
  const whole = right - left >= query.width && bottom - top >= query.height;
  page.box.toggleAttribute("hidden", whole);
}

// ---- the answer

function pathElement(path) {
  const made = element("div", "id");
  // Lines break after a slash first.
  for (const piece of path.split(/(?<=\/)/)) made.append(piece, document.createElement("wbr"));
  return made;
}

function labelText(label) {
  return /^\d+$/.test(label) ? `identity ${label}` : label.replaceAll("_", " ");
}

function card(result) {
  const item = element("li", "card");
  const name = result.label === null ? result.image_id : labelText(result.label);
  const image = element("img");
  image.src = result.thumbnail;
  image.alt = `Result ${result.rank}: ${name}`;
  image.loading = "lazy";
  image.width = image.height = 218;
  const text = element("div", "card-text");
  const top = element("div", "card-top");
  top.append(element("span", "rank", `#${result.rank}`), element("span", "score", result.score.toFixed(3)));
  top.lastChild.title = "Similarity: cosine of the two embeddings, 1 is the same photo";
  const bar = element("div", "bar");
  bar.setAttribute("aria-hidden", "true");
  const fill = element("span");
  fill.style.width = `${Math.round(100 * Math.min(1, Math.max(0, result.score)))}%`;
  bar.append(fill);
  text.append(top, bar);
  if (result.label !== null) text.append(element("div", "label", labelText(result.label)));
  text.append(pathElement(result.image_id));
  item.append(image, text);
  return item;
}

function showAnswer(answer, seconds) {
  page.results.replaceChildren(...answer.results.map(card));
  page.empty.hidden = true;
  page.status.textContent = `${answer.results.length} images, the most alike first`;
  drawBox(answer.query);
  const [x1, y1, x2, y2] = answer.query.box;
  const ms = (value) => `${(1000 * value).toFixed(0)} ms`;
  showFacts([
    ["Photo", `${number(answer.query.width)} × ${number(answer.query.height)} px`],
    ["Searched with", `${Math.round(x2 - x1)} × ${Math.round(y2 - y1)} px`, "key"],
    ["Find and crop", ms(answer.seconds.prepare)],
    ["Embed", ms(answer.seconds.embed)],
    ["Search index", ms(answer.seconds.search)],
    ...(answer.expansion ? [["Expanded with", `${answer.expansion.num} nearest, alpha ${answer.expansion.alpha}`]] : []),
    ["Round trip", ms(seconds)],
    ["Model", answer.model.slice(0, 12)],
    ["Index", answer.index.slice(0, 12)],
  ]);
}

function clearAnswer() {
  page.results.replaceChildren();
  page.status.textContent = "";
  page.empty.hidden = false;
  page.facts.hidden = true;
}

function showFacts(pairs) {
  const rows = pairs.flatMap(([name, value, kind]) => [element("dt", kind, name), element("dd", "", value)]);
  page.facts.replaceChildren(...rows);
  page.facts.hidden = false;
}

// ---- events

page.file.addEventListener("change", () => take(page.file.files[0]));
page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
page.k.addEventListener("change", search);
page.expand.addEventListener("change", search);
document.addEventListener("paste", (event) => {
  take([...event.clipboardData.files].find((file) => file.type.startsWith("image/")));
});
// Anywhere on the page: a photo dropped beside the field must not make the browser leave the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  page.drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) page.drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  page.drop.classList.remove("over");
  take(event.dataTransfer.files[0]);
});

offerK(100);
loadInfo();
