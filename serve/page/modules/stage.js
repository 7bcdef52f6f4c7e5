// The photo that is asked with: boxes of faces to choose from, or a region to draw.

import { h } from "./dom.js";

const SMALLEST = 16; // pixels of the photo: what the server still cuts out
const STEP = 0.02; // of the photo, for one arrow key

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

export class Stage {
  /** `root` is emptied. `onRegion` is told [x1, y1, x2, y2] in pixels of the upright photo, or null. */
  constructor(root, { onRegion = () => {} } = {}) {
    this.root = root;
    this.onRegion = onRegion;
    this.drawable = false;
    this.size = null; // of the upright photo, pixels
    this.region = null;
    root.addEventListener("pointerdown", (event) => this.#press(event));
  }

  /** Show a photo; a blob: address is taken over. Returns its size, or null where this browser cannot show its format. */
  async show(address, alt) {
    this.size = this.region = null;
    if (this.address) URL.revokeObjectURL(this.address);
    this.address = address;
    const image = h("img", { src: address, alt, draggable: "false" });
    this.root.replaceChildren(image);
    this.root.hidden = false;
    try {
      await image.decode();
    } catch {
      if (this.root.firstChild === image) this.root.hidden = true;
      return null;
    }
    this.image = image;
    this.size = { width: image.naturalWidth, height: image.naturalHeight };
    this.root.style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    return this.size;
  }

  #place(element, [x1, y1, x2, y2]) {
    const { width, height } = this.size;
    const left = clamp(x1, 0, width),
      top = clamp(y1, 0, height); // a face's box may reach outside
    const place = { left: left / width, top: top / height };
    place.width = (clamp(x2, 0, width) - left) / width;
    place.height = (clamp(y2, 0, height) - top) / height;
    for (const [name, share] of Object.entries(place)) element.style[name] = `${100 * share}%`;
  }

  /** Boxes to choose from: { number, box, text, usable }. */
  faces(faces, chosen, onChoose) {
    this.root.querySelectorAll(".face").forEach((one) => one.remove());
    if (!this.size) return;
    // The largest first, so that a small face in front of a large one can still be pressed.
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    for (const face of [...faces].sort((one, other) => area(other.box) - area(one.box))) {
      const many = faces.length > 1;
      const made = h(
        many ? "button" : "div",
        {
          class: `face${face.usable ? "" : " unusable"}${face.number === chosen ? " chosen" : ""}`,
          type: many ? "button" : null,
          data: { face: face.number },
          title: face.text,
          "aria-label": many ? face.text : null,
          "aria-pressed": many ? String(face.number === chosen) : null,
          disabled: many && !face.usable,
          on: many ? { click: (event) => (event.stopPropagation(), onChoose(face.number)) } : {},
        },
        many && h("span", { "aria-hidden": "true" }, String(face.number + 1)),
      );
      this.#place(made, face.box);
      this.root.append(made);
    }
  }

  /** Show a region, or none. */
  setRegion(box) {
    if (box && this.region && String(box.map(Math.round)) === String(this.region.map(Math.round))) return; // keeps the focus
    this.root.querySelector(".region")?.remove();
    this.region = box;
    if (!box || !this.size) return;
    const made = h("div", {
      class: "region",
      tabindex: "0",
      role: "group",
      "aria-label": "Region searched with. Arrow keys move it, with Shift they change its size, Delete takes it away.",
      on: { keydown: (event) => this.#key(event) },
    });
    this.#place(made, box);
    this.root.append(made);
  }

  /** A region in the middle, with the focus on it: for those who do not draw. */
  startRegion() {
    const { width, height } = this.size;
    this.setRegion([0.25 * width, 0.25 * height, 0.75 * width, 0.75 * height]);
    this.root.querySelector(".region").focus();
    this.onRegion(this.region);
  }

  #key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step && event.key !== "Delete" && event.key !== "Backspace") return;
    event.preventDefault();
    if (!step) {
      this.setRegion(null);
      this.onRegion(null);
      return;
    }
    const { width, height } = this.size;
    const [dx, dy] = [step[0] * STEP * width, step[1] * STEP * height];
    let [x1, y1, x2, y2] = this.region;
    if (event.shiftKey) {
      x2 = clamp(x2 + dx, x1 + SMALLEST, width);
      y2 = clamp(y2 + dy, y1 + SMALLEST, height);
    } else {
      const [mx, my] = [clamp(dx, -x1, width - x2), clamp(dy, -y1, height - y2)];
      [x1, y1, x2, y2] = [x1 + mx, y1 + my, x2 + mx, y2 + my];
    }
    this.region = [x1, y1, x2, y2];
    this.#place(event.target, this.region);
    clearTimeout(this.later);
    this.later = setTimeout(() => this.onRegion(this.region), 500); // not for each step
  }

  #point(event) {
    const frame = this.root.getBoundingClientRect();
    return [
      clamp((event.clientX - frame.left) / frame.width, 0, 1) * this.size.width,
      clamp((event.clientY - frame.top) / frame.height, 0, 1) * this.size.height,
    ];
  }

  #press(event) {
    if (!this.drawable || !this.size || event.button !== 0) return;
    event.preventDefault();
    const [x, y] = this.#point(event),
      before = this.region;
    const inside = before && x > before[0] && x < before[2] && y > before[1] && y < before[3];
    const move = (to) => {
      const [nx, ny] = this.#point(to);
      if (!inside) return this.setRegion([Math.min(x, nx), Math.min(y, ny), Math.max(x, nx), Math.max(y, ny)]);
      const dx = clamp(nx - x, -before[0], this.size.width - before[2]);
      const dy = clamp(ny - y, -before[1], this.size.height - before[3]);
      return this.setRegion([before[0] + dx, before[1] + dy, before[2] + dx, before[3] + dy]);
    };
    const stop = (last) => {
      this.root.removeEventListener("pointermove", move);
      this.root.removeEventListener("pointerup", stop);
      this.root.removeEventListener("pointercancel", stop);
      if (last.type === "pointercancel") return this.setRegion(before);
      const [x1, y1, x2, y2] = this.region ?? [0, 0, 0, 0];
      if (x2 - x1 < SMALLEST || y2 - y1 < SMALLEST) return this.setRegion(before); // a press, not a drawing
      return String(this.region) !== String(before) && this.onRegion(this.region);
    };
    this.root.setPointerCapture(event.pointerId);
    this.root.addEventListener("pointermove", move);
    this.root.addEventListener("pointerup", stop);
    this.root.addEventListener("pointercancel", stop);
  }

  /** A part of the photo as a small canvas, or null where the photo cannot be shown. */
  cut([x1, y1, x2, y2], side) {
    if (!this.size) return null;
    const canvas = h("canvas", { "aria-hidden": "true" });
    const longer = Math.max(x2 - x1, y2 - y1);
    canvas.width = Math.round((side * (x2 - x1)) / longer);
    canvas.height = Math.round((side * (y2 - y1)) / longer);
    const brush = canvas.getContext("2d");
    brush.imageSmoothingQuality = "high";
    brush.drawImage(this.image, x1, y1, x2 - x1, y2 - y1, 0, 0, canvas.width, canvas.height);
    return canvas;
  }
}
