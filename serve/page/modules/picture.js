// Stored photos. Where the server asks for a key, an <img> cannot send it: then the page fetches the photo itself.

import { h } from "./dom.js";
import * as api from "./api.js";

const fetched = new Map(); // address -> Promise of a blob: address
const KEPT = 600;

async function load(address) {
  return URL.createObjectURL(await (await api.request(address)).blob());
}

function held(address) {
  if (!fetched.has(address)) {
    const promise = load(address);
    promise.catch(() => fetched.delete(address));
    fetched.set(address, promise);
    if (fetched.size > KEPT) {
      const [oldest, url] = fetched.entries().next().value;
      fetched.delete(oldest);
      url.then(URL.revokeObjectURL, () => {});
    }
  }
  return fetched.get(address);
}

const seen = new IntersectionObserver(
  (entries) =>
    entries
      .filter((one) => one.isIntersecting)
      .forEach(({ target }) => {
        seen.unobserve(target);
        held(target.dataset.address).then(
          (url) => (target.src = url),
          () => target.classList.add("missing"),
        );
      }),
  { rootMargin: "200px" },
);

/** An image of the gallery. */
export function picture(address, alt, attributes = {}) {
  const made = h("img", { alt, decoding: "async", ...attributes });
  made.addEventListener("error", () => made.classList.add("missing"));
  if (!api.key()) {
    made.loading = "lazy";
    made.src = address;
  } else {
    made.dataset.address = address;
    seen.observe(made);
  }
  return made;
}
