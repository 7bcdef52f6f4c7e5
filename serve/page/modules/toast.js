// Short messages at the edge, and what can still be undone.

import { announce, at, button, h } from "./dom.js";

const SHOWN_MS = 6000;

/** Show a message for a while. `actions` are [text, handler]. Returns a function that takes it away. */
export function toast(text, actions = [], shownMs = SHOWN_MS) {
  const gone = () => made.remove();
  const buttons = actions.map(([name, act]) => button(name, () => (gone(), act()), { kind: "quiet" }));
  const made = h("div", { class: "toast" }, h("span", {}, text), buttons);
  at("toasts").append(made);
  announce(text);
  countdown(made, shownMs, gone);
  return gone;
}

/** A message that does something when its time is over, unless it is undone. Time stands still under pointer or focus. */
export function undoable(text, { done, undone, confirm, shownMs }) {
  let settled = false;
  const settle = (act) => () => {
    if (settled) return;
    settled = true;
    made.remove();
    act();
  };
  const bar = h("span", {
    class: "toast-time",
    "aria-hidden": "true",
    style: { "animation-duration": `${shownMs}ms` },
  });
  const made = h(
    "div",
    { class: "toast" },
    h("span", {}, text),
    button("Undo", settle(undone), { kind: "quiet strong" }),
    button(confirm, settle(done), { kind: "quiet danger" }),
    bar,
  );
  at("toasts").append(made);
  announce(`${text} Undo is possible for ${Math.round(shownMs / 1000)} seconds.`);
  countdown(made, shownMs, settle(done));
}

function countdown(element, totalMs, over) {
  let left = totalMs,
    since = 0,
    timer = 0;
  const start = () => {
    if (timer || element.matches(":hover, :focus-within")) return;
    since = performance.now();
    timer = setTimeout(over, left);
    element.classList.remove("held");
  };
  const stop = () => {
    if (!timer) return;
    clearTimeout(timer);
    timer = 0;
    left = Math.max(500, left - (performance.now() - since));
    element.classList.add("held");
  };
  for (const event of ["pointerenter", "focusin"]) element.addEventListener(event, stop);
  for (const event of ["pointerleave", "focusout"])
    element.addEventListener(event, () => setTimeout(() => element.isConnected && start()));
  start();
}
