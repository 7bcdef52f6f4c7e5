// The page: which view is shown, photos that come from outside, keys, and what the server is.

import * as add from "./add.js";
import * as api from "./api.js";
import * as compare from "./compare.js";
import { prompt } from "./dialog.js";
import { announce, at, h, icon } from "./dom.js";
import * as duplicates from "./duplicates.js";
import { plural } from "./format.js";
import { info, loadInfo } from "./info.js";
import * as people from "./people.js";
import { address, go, read } from "./route.js";
import * as search from "./search.js";
import { toast } from "./toast.js";

const VIEWS = {
  search: { module: search, title: "Search", drawing: "search", offered: () => true },
  compare: { module: compare, title: "Compare", drawing: "compare", offered: () => true },
  people: { module: people, title: "People", drawing: "people", offered: ({ people: known }) => known },
  duplicates: { module: duplicates, title: "Duplicates", drawing: "duplicates", offered: ({ people: known }) => known },
  add: { module: add, title: "Add", drawing: "add", offered: ({ add: can }) => can },
};
let shown = null;

function showNav() {
  const links = Object.entries(VIEWS)
    .filter(([, view]) => view.offered(info.features))
    .map(([name, view]) =>
      h("a", { href: address(name), data: { view: name } }, icon(view.drawing), h("span", {}, view.title)),
    );
  at("nav").replaceChildren(...links);
}

async function showRoute() {
  const route = read();
  const named = route.view === "photo" ? "search" : route.view;
  const name = VIEWS[named].offered(info.features) ? named : "search";
  const moved = shown !== null && shown !== name;
  if (moved) VIEWS[shown].module.leave?.();
  shown = name;
  for (const one of Object.keys(VIEWS)) at(one).hidden = one !== name;
  for (const link of at("nav").children) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === "search" ? "Image search" : `${VIEWS[name].title} · Image search`;
  if (moved) {
    window.scrollTo(0, 0);
    at("main").focus({ preventScroll: true });
    announce(VIEWS[name].title);
  }
  at("error").hidden = true;
  try {
    await VIEWS[name].module.show(route);
  } catch (error) {
    if (error.name === "AbortError") return;
    at("error").textContent = error instanceof api.Refused ? error.message : `The page failed: ${error.message}`;
    at("error").hidden = false;
  }
}

function showAbout() {
  const { num_images: images, num_identities: identities } = info.index;
  const of = identities ? ` of ${plural(identities, info.kind === "people" ? "person" : "place", info.kind)}` : "";
  at("about").textContent = `${plural(images, "photo")}${of}`;
}

// ---- the key

async function askForKey() {
  const text = await prompt("This service asks for a key", {
    text: "Key",
    kind: "password",
    action: "Use it",
    hint: "Kept until this tab is closed. Whoever runs the service makes keys.",
  });
  if (!text) return false;
  api.keepKey(text);
  showKey();
  return true;
}

function showKey() {
  at("key").hidden = !api.key();
  at("key").replaceChildren(icon("key"));
  at("key").title = "Forget or change the key";
  at("key").setAttribute("aria-label", "Forget or change the key");
}

at("key").addEventListener("click", async () => {
  api.keepKey(null);
  showKey();
  await askForKey();
  location.reload();
});
api.whenAsked({
  key: askForKey,
  wait: (seconds) => toast(`The server is busy. Asking again in ${plural(seconds, "second")}.`, [], 1000 * seconds),
});

// ---- photos from outside

document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
  if (file) (VIEWS[shown]?.module.take ?? search.take)(file);
});
// Anywhere on the page: a photo dropped beside the field must not make the browser leave the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const view = VIEWS[shown]?.module;
  const isFolder = event.dataTransfer.items[0]?.webkitGetAsEntry?.()?.isDirectory;
  if (isFolder && info.features.add) {
    add.show();
    add.drop(event.dataTransfer);
    go(address("add"));
  } else if (isFolder) search.fail(new api.Refused("A folder cannot be searched with. Drop one photo."));
  else if (view?.drop) view.drop(event.dataTransfer, event);
  else search.take(event.dataTransfer.files[0]);
});

at("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says what is shown
  at("main").focus();
});

async function start() {
  showKey();
  try {
    await loadInfo();
  } catch (error) {
    at("error").replaceChildren(
      error.message,
      " ",
      h("button", { type: "button", on: { click: () => location.reload() } }, "Try again"),
    );
    at("error").hidden = false;
    return;
  }
  showAbout();
  showNav();
  window.addEventListener("hashchange", showRoute);
  document.addEventListener("gallery-changed", () => loadInfo().then(showAbout, () => {}));
  await showRoute();
  document.body.classList.add("ready");
}

start();
