// Search: a photo or a stored image in, ranked photos out. Before anything is asked: the people and photos there are.

import * as api from "./api.js";
import { showChips, showDecision, showFacts } from "./answer.js";
import { announce, at, fill, h, icon } from "./dom.js";
import { showDetail } from "./detail.js";
import { bytes, number, plural, problem } from "./format.js";
import { grid, rove, skeleton } from "./grid.js";
import { info, usualFar } from "./info.js";
import { showFilters, showOptions, USUAL_K } from "./options.js";
import { personChip } from "./people.js";
import { picture } from "./picture.js";
import { showAsked, showFaces, showPhoto, showPhotoBar, stage, whenChosen } from "./query.js";
import { isAway, removeLater } from "./remove.js";
import { address, go, readFilter, readOptions, readQuery, replace } from "./route.js";
import { toast } from "./toast.js";

const BROWSED = 60; // stored photos at a time, before anything is asked
const STRIP = 24;
const ASKED_WITH = ["face", "box", "image_id", "like", "unlike", "text"]; // in the address

let route = null;
let photo = null; // the File searched with; it never leaves this page except in a search
let found = null; // { asked, answer, seconds }: the last answer, and what it was the answer to
let running = null; // AbortController of what is under way
const results = rove(at("results"), { onDelete: (id) => info.features.add && removeLater([id]) });

/** Change the options in the address, and with them what is shown. */
function change(edit) {
  const params = new URLSearchParams(route.params);
  edit(params);
  replace(address(route.view, params));
}

whenChosen(change);

export function fail(error) {
  at("error").textContent = error instanceof api.Refused ? error.message : `The page failed: ${error.message}`;
  at("error").hidden = false;
}

const clearError = () => (at("error").hidden = true);

/** Search with a photo from outside. Returns whether it can be one. */
export function take(file) {
  if (!file) return false;
  const refuse = (why) => (fail(new api.Refused(why)), false);
  if (file.type && !file.type.startsWith("image/")) return refuse(`“${file.name || "This"}” is not an image.`);
  if (info && file.size > info.limits.max_body_bytes) {
    return refuse(`The photo has ${bytes(file.size)}; this server takes up to ${bytes(info.limits.max_body_bytes)}.`);
  }
  photo = file;
  found = null;
  const params = new URLSearchParams(route?.params);
  for (const name of ASKED_WITH) params.delete(name);
  go(address("photo", params));
  return true;
}

/** Search with what is written in the field for words. */
function say() {
  const text = at("text").value.trim();
  if (!text) return;
  const params = new URLSearchParams(route?.params);
  for (const name of ASKED_WITH) params.delete(name);
  params.set("text", text);
  go(address("search", params));
}

export async function show(to) {
  route = to;
  if (route.view === "photo" && !photo) return replace(address("search", route.params)); // reloaded: a photo is not kept
  const query = readQuery(route.params);
  const withPhoto = route.view === "photo";
  showOptions(route.params, change);
  showFilters(route.params, change);
  showChips(route.params, change);
  at("options").hidden ||= !withPhoto && !query;
  at("link").hidden = !query;
  clearError();
  if (withPhoto) await showPhoto(photo);
  else showAsked(query);
  at("words").hidden = !info.features.text;
  at("text").value = query?.text ?? "";
  at("people-row").hidden = true;
  if (withPhoto || query) return answer(withPhoto, query);
  return browse();
}

export function leave() {
  running?.abort();
}

// ---- the answer

async function run(work) {
  running?.abort();
  const mine = (running = new AbortController());
  at("answers").setAttribute("aria-busy", "true");
  try {
    await work(mine.signal);
  } catch (error) {
    if (error.name === "AbortError") return; // a newer one took over
    fill(results);
    results.hidden = false;
    for (const part of ["decision", "facts", "more", "empty"]) at(part).hidden = true;
    at("status").textContent = "";
    fail(error);
    if (photo && route.view === "photo") await showWhy(error);
  } finally {
    if (running === mine) {
      running = null;
      at("answers").setAttribute("aria-busy", "false");
    }
  }
}

/** No face can be used: show those that there are, each with its reason. */
async function showWhy(error) {
  showPhotoBar(photo.name || "pasted photo");
  if (!info.features.faces || !error.reason?.startsWith("face-")) return;
  const seen = await api.faces(photo).catch(() => null);
  if (seen)
    stage.faces(
      seen.faces.map((one) => ({
        number: one.face,
        box: one.box,
        usable: one.usable,
        text: `Face ${one.face + 1}: ${one.reason ? problem(one.reason) : "usable"}`,
      })),
      null,
      () => {},
    );
}

async function answer(withPhoto, query) {
  const options = { k: Math.min(USUAL_K, info.limits.max_k), far: usualFar(), ...readOptions(route.params) };
  if (options.rerank ?? info.defaults.rerank) options.evidence = options.crop = true;
  const box = route.params.get("box")?.split(",").map(Number);
  if (withPhoto && info.features.faces) options.face = "all";
  if (withPhoto && info.features.box && box?.length === 4 && box.every(Number.isFinite)) options.box = box;
  // No one photo to check by; and what the scores of words mean was not measured.
  if (query?.image_ids || query?.text) for (const name of ["rerank", "evidence", "crop"]) delete options[name];
  if (query?.text) delete options.min_probability;
  const asked = JSON.stringify([options, query, withPhoto && [photo.name, photo.size, photo.lastModified]]);
  at("answers-title").textContent = "Results";
  await run(async (signal) => {
    if (found?.asked !== asked) {
      at("status").textContent = "Searching…";
      if (!results.querySelector(".card[data-id]")) fill(results, skeleton(10));
      const started = performance.now();
      const said = withPhoto
        ? await api.searchPhoto(photo, options, signal)
        : await api.search(
            { ...options, k: Math.min(options.k + idsOf(query).length, info.limits.max_k), ...query },
            signal,
          );
      found = { asked, answer: said, seconds: (performance.now() - started) / 1000 };
    }
    if (withPhoto) stage.setRegion(options.box ?? null);
    showAnswer(found, query);
  });
}

function showAnswer({ answer: said, seconds }, query) {
  const wanted = route.params.get("face");
  const faces = said.faces ?? [];
  const one = faces.find((face) => String(face.query.face) === wanted && !face.error) ?? {
    query: said.query,
    results: said.results,
    decision: said.decision,
  };
  if (said.query) {
    showPhotoBar(`${photo.name || "pasted photo"} · ${bytes(photo.size)}`);
    if (info.features.faces) showFaces(faces.length ? faces : [one], one.query.face ?? 0);
  }
  const own = idsOf(query);
  const left = one.results.filter((result) => !isAway(result.image_id) && !own.includes(result.image_id));
  // That a stored photo matches itself is no news.
  showDecision(own.includes(one.results[0]?.image_id) ? null : one.decision, left);
  showFacts(said, seconds);
  const threshold = one.decision.threshold;
  // Scores of an expanded query are others, and geometry has an order of its own: no line can be drawn there.
  const whole = threshold === null || said.expansion || left.some((result) => (result.inliers ?? null) !== null);
  const near = whole ? left : left.filter((result) => result.score >= threshold);
  const options = { onOpen: (image) => openResult(image, left, one, query) };
  const far = left.slice(near.length);
  fill(
    results,
    near.length > 0 && grid(near, options, { "aria-label": "Results" }),
    far.length > 0 && [
      h(
        "h3",
        { class: "below" },
        near.length ? `Below the threshold of ${threshold.toFixed(3)}` : "The nearest, all below the threshold",
      ),
      grid(far, options, { class: "grid far", "aria-label": "Results below the threshold" }),
    ],
  );
  results.rove();
  at("more").hidden = true;
  at("status").textContent = `${plural(left.length, "photo")}, the most alike first`;
  at("empty").hidden = left.length > 0;
  at("empty").textContent = said.searched
    ? "No photo is as probable as you asked for."
    : "The filters leave no photo to search in.";
  announce(`${at("decision").querySelector("strong")?.textContent ?? ""}. ${plural(left.length, "photo")}.`);
}

/** The stored photos that a query is made of. */
const idsOf = (query) =>
  query?.image_ids?.map((one) => one.image_id) ?? (query?.image_id ? [query.image_id] : []);

function openResult(image, all, one, query) {
  const cut = () =>
    one.query?.crop
      ? h("img", { src: one.query.crop, alt: "The part of your photo" })
      : one.query
        ? cutOut(one.query)
        : picture(api.thumbnail(route.params.get("image_id")), "The photo searched with");
  const refine = query && !query.text && ((name, id) => change((params) => params.append(name, id)));
  const queryPicture = query?.text ? null : cut;
  showDetail(all, all.indexOf(image), { queryPicture, canDelete: info.features.add, refine });
}

function cutOut(query) {
  const canvas = stage.cut(query.box, 448);
  canvas?.setAttribute("role", "img");
  canvas?.removeAttribute("aria-hidden");
  canvas?.setAttribute("aria-label", "The part of your photo");
  return canvas;
}

// ---- before anything is asked

async function browse() {
  found = null;
  showDecision(null);
  showFacts(null);
  at("answers-title").textContent = "Photos";
  const filter = readFilter(route.params);
  if (info.features.people && !filter) showStrip();
  const images = [];
  const load = (after) =>
    run(async (signal) => {
      if (!after) fill(results, skeleton(12));
      const page = await api
        .images({ limit: BROWSED, after, filter: filter && JSON.stringify(filter) }, signal)
        .catch((error) => {
          if (error.status === 404 || error.status === 405) return { images: [], next: null, unlisted: true };
          throw error;
        });
      const fresh = page.images.filter((one) => !isAway(one.image_id));
      images.push(...fresh);
      const options = {
        onOpen: (image) => showDetail(images, images.indexOf(image), { canDelete: info.features.add }),
      };
      const made = grid(fresh, options, { "aria-label": "Photos" });
      if (after) results.querySelector(".grid").append(...made.children);
      else fill(results, made.children.length > 0 && made);
      results.rove();
      at("more").hidden = !page.next;
      at("more").onclick = () => load(page.next);
      at("answers-title").textContent = page.unlisted ? "Results" : "Photos";
      at("status").textContent = images.length ? `${number(images.length)}${page.next ? "+" : ""} shown` : "";
      at("empty").hidden = images.length > 0;
      at("empty").textContent = page.unlisted
        ? "Results appear here, the most alike first."
        : filter
          ? "No photo is left by the filters."
          : "There are no photos yet.";
    });
  await load("");
}

async function showStrip() {
  const here = route;
  const { people } = await api.people({ limit: STRIP }).catch(() => ({ people: [] }));
  if (route !== here) return;
  fill(
    at("people-strip"),
    people.map((one) => h("li", {}, personChip(one))),
  );
  at("people-row").hidden = !people.length;
}

// ---- events

at("choose").addEventListener("click", () => at("file").click());
at("take").addEventListener("click", () => at("camera").click());
for (const name of ["file", "camera"]) {
  at(name).addEventListener("change", (event) => {
    take(event.target.files[0]);
    event.target.value = ""; // the same photo can be chosen again
  });
}
at("say").addEventListener("click", say);
at("text").addEventListener("keydown", (event) => event.key === "Enter" && say());
at("query").addEventListener("submit", (event) => event.preventDefault());
at("link").append(icon("link"));
at("link").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    toast("The link to this search was copied.");
  } catch {
    toast("The address of this page is the link to this search."); // the browser lets nobody copy here
  }
});
