// Dialogs: the browser's own, which keep the focus, close on Escape and give the focus back.

import { button, h } from "./dom.js";

let numbers = 0;

/** Open a dialog. Returns { element, close, closed }; `closed` is a promise of what `close` was given. */
export function open(title, ...children) {
  const name = `dialog-${++numbers}`;
  const element = h("dialog", { class: "dialog", "aria-labelledby": name });
  const close = (value = null) => {
    element.returned = value;
    element.close();
  };
  const head = h(
    "div",
    { class: "dialog-head" },
    h("h2", { id: name }, title),
    button("", () => close(), { kind: "quiet icon-button", drawing: "close", label: "Close" }),
  );
  element.append(head, ...children.filter(Boolean));
  element.addEventListener("click", (event) => event.target === element && close()); // the backdrop
  const closed = new Promise((resolve) => {
    element.addEventListener("close", () => {
      element.remove();
      resolve(element.returned ?? null);
    });
  });
  document.body.append(element);
  element.showModal();
  return { element, close, closed };
}

/** Ask for one line of text. Returns it, or null. */
export async function prompt(title, { text, value = "", kind = "text", action = "Save", hint = null }) {
  const input = h("input", { type: kind, value, autocomplete: "off", spellcheck: "false" });
  const form = h(
    "form",
    { class: "stack", method: "dialog" },
    h("label", { class: "field" }, h("span", {}, text), input, hint && h("small", { class: "muted" }, hint)),
    h(
      "div",
      { class: "row end" },
      button("Cancel", () => box.close()),
      h("button", { class: "primary" }, action),
    ),
  );
  const box = open(title, form);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    box.close({ text: input.value.trim() });
  });
  input.focus();
  input.select();
  return (await box.closed)?.text ?? null;
}
