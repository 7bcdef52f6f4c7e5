// Add photos: a dropped folder, sent a few at a time; what became of each is told.

import * as api from "./api.js";
import { announce, at, button, fill, h, svg } from "./dom.js";
import { bytes, number, plural } from "./format.js";
import { info } from "./info.js";
import { similar } from "./grid.js";
import { isBack } from "./remove.js";

const AT_ONCE = 8,
  BYTES_AT_ONCE = 8 << 20;
const OF_PHOTOS = new Set([400, 413, 415, 422]); // refused for what was sent
const MOST_ROWS = 500; // the counts tell of all
const PHOTO = /\.(jpe?g|png|webp|gif|bmp|tiff?|heic|avif)$/i;
const root = at("add");
let queue = []; // { file, imageId }
let sending = null; // AbortController
let parts = null;

/** All files of what was dropped, folders included: { file, imageId }, the id from the path inside the folder. */
async function filesOf(entry, found) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    found.push({ file, imageId: entry.fullPath.replace(/^\//, "") });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return; // a reader gives a hundred at a time
    for (const one of some) await filesOf(one, found);
  }
}

export async function drop(data) {
  const entries = [...data.items].map((one) => one.webkitGetAsEntry?.()).filter(Boolean); // before the first wait: then they are gone
  const found = [];
  for (const one of entries) await filesOf(one, found);
  choose(found);
}

export function take(file) {
  choose([{ file, imageId: file.name || `pasted-${Date.now()}.png` }]);
}

const fromField = (files) =>
  choose([...files].map((file) => ({ file, imageId: file.webkitRelativePath || file.name })));

function choose(files) {
  if (sending) return;
  const photos = files
    .filter(({ file }) => file.type.startsWith("image/") || PHOTO.test(file.name))
    .sort((one, other) => (one.imageId < other.imageId ? -1 : 1));
  const large = photos.filter(({ file }) => file.size > info.limits.max_body_bytes);
  queue = photos.filter((one) => !large.includes(one));
  const others = files.length - photos.length;
  const said = [
    plural(queue.length, "photo"),
    bytes(queue.reduce((sum, { file }) => sum + file.size, 0)),
    others > 0 && `${plural(others, "other file")} left out`,
    large.length > 0 && `${number(large.length)} too large`,
  ].filter(Boolean);
  fill(parts.results);
  fill(parts.progress);
  parts.summary.textContent = queue.length ? said.join(" · ") : "There is no photo among them.";
  parts.send.hidden = !queue.length;
  parts.send.textContent = `Add ${plural(queue.length, "photo")}`;
  if (queue.length) parts.send.focus();
}

/** The label of a photo: the folder that it is in. */
function folderLabel(imageId) {
  const folders = imageId.split("/").slice(0, -1);
  return folders.at(-1) ?? null;
}

function batches(photos) {
  const most = Math.min(AT_ONCE, info.limits.max_batch_photos ?? AT_ONCE);
  const limit = Math.min(BYTES_AT_ONCE, info.limits.max_body_bytes);
  const made = [];
  let size = Infinity;
  for (const one of photos) {
    if (size + one.file.size > limit || made.at(-1).length >= most) {
      made.push([]);
      size = 0;
    }
    made.at(-1).push(one);
    size += one.file.size;
  }
  return made;
}

async function send() {
  sending = new AbortController();
  const { signal } = sending,
    all = queue.length,
    counts = { added: 0, known: 0, refused: 0 };
  const bar = h("progress", { max: String(all), "aria-label": "Photos sent" }),
    text = h("p", { class: "muted" });
  bar.value = 0;
  fill(
    parts.progress,
    bar,
    h(
      "div",
      { class: "row" },
      text,
      button("Stop", () => sending?.abort(), { kind: "quiet" }),
    ),
  );
  parts.send.hidden = true;
  fill(parts.results);
  let done = 0;
  const tell = () => {
    bar.value = done;
    text.textContent = `${number(done)} of ${number(all)} · ${number(counts.added)} added${counts.known ? ` · ${number(counts.known)} were there` : ""}${counts.refused ? ` · ${number(counts.refused)} refused` : ""}`;
  };
  tell();
  let problem = null;
  const waiting = batches(queue);
  while (waiting.length && !signal.aborted) {
    const batch = waiting.shift();
    try {
      const answer = await sendBatch(batch, signal);
      isBack(answer.items.flatMap((item) => item.images ?? []));
      answer.items.forEach((item, place) => report(item, batch[place], counts));
    } catch (error) {
      if (error.name === "AbortError") break;
      if (!OF_PHOTOS.has(error.status)) {
        problem = error; // not the photos' fault: the next will fare no better
        break;
      }
      if (batch.length > 1) {
        waiting.unshift(...batch.map((one) => [one])); // one of them spoils all: which?
        continue;
      }
      report({ image_id: batch[0].imageId, status: error.status, error }, batch[0], counts);
    }
    done += batch.length;
    tell();
  }
  finish(done, all, counts, signal.aborted, problem);
}

function sendBatch(batch, signal) {
  const said = ({ imageId }) => ({ image_id: imageId, label: parts.byFolder.checked ? folderLabel(imageId) : null });
  const params = { keep_original: parts.keep.checked || null, faces: parts.allFaces?.checked ? "all" : null };
  return api.add(batch, { items: batch.map(said) }, params, signal);
}

function finish(done, all, counts, stopped, problem) {
  sending = null;
  const left = all - done;
  queue = left ? queue.slice(done) : [];
  const said = `${plural(counts.added, "photo")} added, ${number(counts.known)} were there already, ${number(counts.refused)} refused.`;
  const why = problem ? ` ${problem.message}` : "";
  parts.summary.textContent = left
    ? `${stopped ? "Stopped" : "Interrupted"}: ${said} ${number(left)} not sent.${why}`
    : said;
  parts.progress.querySelector("button")?.remove();
  parts.send.hidden = !left;
  parts.send.textContent = `Go on with ${plural(left, "photo")}`;
  announce(parts.summary.textContent);
  if (counts.added) document.dispatchEvent(new CustomEvent("gallery-changed"));
}

const STATES = { 201: ["added", "added"], 200: ["known", "was there already"] };

function report(item, { file }, counts) {
  const [kind, text] = STATES[item.status] ?? ["refused", item.error?.message ?? `refused (${item.status})`];
  counts[kind] += 1;
  const image = item.images?.[0] ?? (kind === "known" ? item.image_id : null);
  const url = URL.createObjectURL(file);
  const shown = h("img", {
    src: url,
    alt: "",
    on: { load: () => URL.revokeObjectURL(url), error: () => URL.revokeObjectURL(url) },
  });
  const faces = item.faces > 1 ? `, ${number(item.faces)} faces` : "";
  const row = h(
    "li",
    { class: `sent ${kind}` },
    shown,
    h("span", { class: "grow line", title: item.image_id }, item.image_id),
    h("span", { class: "muted" }, `${text}${faces}`),
    image && h("a", { href: similar(image) }, "Search"),
  );
  parts.results.hidden = false;
  if (kind === "refused")
    parts.results.prepend(row); // what needs a look comes first
  else parts.results.append(row);
}

export function show() {
  if (parts) return;
  const folder = h("input", {
    type: "file",
    class: "unseen",
    webkitdirectory: true,
    multiple: true,
    tabindex: "-1",
    "aria-label": "Folder of photos",
    on: { change: () => fromField(folder.files) },
  });
  const files = h("input", {
    type: "file",
    class: "unseen",
    accept: "image/*",
    multiple: true,
    tabindex: "-1",
    "aria-label": "Photos",
    on: { change: () => fromField(files.files) },
  });
  const check = (text, hint, checked = false) => {
    const box = h("input", { type: "checkbox", checked });
    return [box, h("label", { class: "check" }, box, h("span", {}, text, h("small", { class: "muted" }, hint)))];
  };
  const [byFolder, byFolderLabel] = check("Label by folder", "ada/1.jpg is a photo of ada");
  const [keep, keepLabel] = check("Keep the originals", "else only what is compared is kept");
  const [allFaces, allFacesLabel] = info.features.faces
    ? check("Every face of a photo", "else only its best one")
    : [null, null];
  parts = {
    byFolder,
    keep,
    allFaces,
    summary: h("p", { role: "status" }),
    progress: h("div", { class: "stack", hidden: true }),
    results: h("ul", { class: "plain sent-list", hidden: true, "aria-label": "What became of each photo" }),
    send: button("", () => send(), { kind: "primary" }),
  };
  parts.send.hidden = true;
  const drawing = svg(
    "svg",
    { viewBox: "0 0 24 24", "aria-hidden": "true" },
    svg("path", {
      d: "M3 7v11a2 2 0 0 0 2 2h14a2 2 0 0 0 2-2V9a2 2 0 0 0-2-2h-8L9 5H5a2 2 0 0 0-2 2Zm9 10v-6m0 0 2.500 2.500M12 11l-2.500 2.500",
    }),
  );
  fill(
    root,
    h("div", { class: "head" }, h("h1", {}, "Add photos")),
    h(
      "div",
      { class: "drop tall" },
      h(
        "div",
        { class: "invite" },
        drawing,
        h("strong", {}, "Drop a folder or photos here"),
        h(
          "span",
          { class: "row" },
          button("Choose a folder", () => folder.click(), { kind: "primary" }),
          button("Choose photos", () => files.click()),
        ),
      ),
      folder,
      files,
    ),
    h("div", { class: "row checks" }, byFolderLabel, keepLabel, allFacesLabel),
    h("div", { class: "row" }, parts.summary, parts.send),
    parts.progress,
    parts.results,
  );
}
