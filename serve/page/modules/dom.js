// Elements without HTML: what comes from a data set or a server is only ever inserted as text.

export const at = (id) => document.getElementById(id);

/** An element. `on` holds event handlers, `data` the dataset, `style` CSS properties; null and false are left out. */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) made.addEventListener(event, handler);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) made.style.setProperty(key, one);
    else if (name === "value" || name === "checked" || name === "disabled" || name === "indeterminate")
      made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(2).filter((one) => one !== null && one !== undefined && one !== false));
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const PATHS = {
  search: ["M16 10a6 6 0 1 1-12 0 6 6 0 0 1 12 0Z", "m15 15 6 6"],
  compare: ["M3 5h7v14H3zM14 5h7v14h-7z"],
  people: [
    "M12 9a3 3 0 1 1-6 0 3 3 0 0 1 6 0Z",
    "M3.5 20c.3-4 2.4-6 5.500-6s5.200 2 5.500 6",
    "M15.500 6.300a3 3 0 0 1 0 5.600M17.500 14.600c1.900.8 2.900 2.600 3 5.400",
  ],
  duplicates: ["M8 8h12v12H8z", "M16 8V4H4v12h4"],
  add: ["M12 5v14M5 12h14"],
  close: ["M6 6l12 12M18 6 6 18"],
  key: ["M14 10a4 4 0 1 1-8 0 4 4 0 0 1 8 0Z", "M13 13l7 7m-3-3 2-2"],
  bin: ["M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13"],
  link: [
    "M10 14a4 4 0 0 0 5.700 0l3-3a4 4 0 0 0-5.700-5.700l-1.500 1.500",
    "M14 10a4 4 0 0 0-5.700 0l-3 3A4 4 0 0 0 11 18.700l1.500-1.500",
  ],
  yes: ["M5 12.500 10 17.500 19.500 7"],
  no: ["M5 12h14"],
  doubt: ["M9 9a3 3 0 1 1 4.500 2.600c-1 .6-1.500 1.200-1.500 2.400M12 17.500v.01"],
  left: ["M15 5l-7 7 7 7"],
  right: ["M9 5l7 7-7 7"],
};

/** A line drawing that says nothing by itself: its button or text does. */
export function icon(name) {
  const paths = PATHS[name].map((d) => svg("path", { d }));
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, ...paths);
}

/** A button; `kind` is its class. */
export function button(text, action, { kind = "", drawing = null, label = null, ...rest } = {}) {
  const attributes = { type: "button", class: kind || null, "aria-label": label, title: label, on: { click: action } };
  return h("button", { ...attributes, ...rest }, drawing && icon(drawing), text);
}

/** A label with its field under it. */
export function field(text, control, hint = null) {
  return h("label", { class: "field" }, h("span", {}, text), control, hint && h("small", { class: "muted" }, hint));
}

export function select(choices, value, attributes = {}) {
  const options = choices.map(([one, text]) => new Option(text, one, false, String(one) === String(value)));
  return h("select", attributes, options);
}

/** Say something to those who listen to the page. */
export function announce(text) {
  at("said").textContent = text;
}

export function fill(place, ...children) {
  place.replaceChildren(...children.flat(2).filter(Boolean));
  place.hidden = !place.childNodes.length;
}

/** The same for fields that are drawn again by what they say: the one with the focus keeps it, by its name. */
export function refill(place, ...children) {
  const name = place.contains(document.activeElement) ? document.activeElement.name : null;
  const open = [...place.querySelectorAll("details")].map((one) => one.open);
  fill(place, ...children);
  place.querySelectorAll("details").forEach((one, number) => (one.open ||= open[number] ?? false));
  if (name) place.querySelector(`[name="${CSS.escape(name)}"]`)?.focus();
}
