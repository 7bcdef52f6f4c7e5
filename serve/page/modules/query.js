// What is asked with: the photo on its stage with faces or a region to choose, or stored photos.

import * as api from "./api.js";
import { at, button, fill, h } from "./dom.js";
import { fileOf, nameOf, percent } from "./format.js";
import { info } from "./info.js";
import { picture } from "./picture.js";
import { address, go } from "./route.js";
import { Stage } from "./stage.js";

let change = () => {}; // writes into the address
const writeBox = (box) => change((params) => (box ? params.set("box", box.map(Math.round)) : params.delete("box")));
export const stage = new Stage(at("stage"), { onRegion: writeBox });

/** Who is told of a choice: a function that takes an edit of the address's parameters. */
export function whenChosen(edit) {
  change = edit;
}

let shownPhoto = null;

export async function showPhoto(photo) {
  fill(at("asked"));
  if (shownPhoto === photo) return;
  shownPhoto = photo;
  at("invite").hidden = true;
  at("drop").classList.add("filled");
  fill(at("faces"));
  const size = await stage.show(URL.createObjectURL(photo), "The photo searched with");
  stage.drawable = info.features.box && size !== null;
  at("stage").classList.toggle("drawable", stage.drawable);
}

export function showAsked(query) {
  shownPhoto = null;
  at("stage").hidden = true;
  fill(at("faces"));
  fill(at("region"));
  at("invite").hidden = false;
  at("drop").classList.remove("filled");
  const parts = query?.image_ids ?? (query?.image_id ? [{ image_id: query.image_id, weight: 1 }] : []);
  const without = (id) =>
    change((params) => {
      for (const name of ["like", "unlike"]) params.delete(name, id);
      if (params.get("image_id") === id) {
        const next = params.get("like");
        params.delete("image_id");
        if (next) (params.delete("like", next), params.set("image_id", next));
        else params.delete("unlike");
      }
    });
  fill(
    at("asked"),
    parts.map(({ image_id: id, weight }) =>
      h(
        "figure",
        { class: weight < 0 ? "against" : null },
        picture(api.thumbnail(id), ""),
        h("figcaption", {}, h("b", {}, weight < 0 ? "Not like" : "Like"), h("span", { title: id }, fileOf(id))),
        button("", () => without(id), {
          kind: "quiet icon-button",
          drawing: "close",
          label: `Search without ${fileOf(id)}`,
        }),
      ),
    ),
  );
  at("drop").classList.toggle("small", parts.length > 0);
}

export function showPhotoBar(text) {
  const again = button("Another photo", () => at("file").click(), { kind: "quiet" });
  const away = button("", () => go(address("search")), {
    kind: "quiet icon-button",
    drawing: "close",
    label: "Take the photo away",
  });
  const box =
    stage.drawable &&
    (stage.region
      ? button("Whole photo", () => (stage.setRegion(null), change((params) => params.delete("box"))), {
          kind: "quiet",
        })
      : button("Choose a region", () => stage.startRegion(), { kind: "quiet" }));
  fill(
    at("region"),
    h("span", { class: `muted grow line${box ? " whole" : ""}`, title: text }, text),
    box,
    again,
    away,
  );
}

/** Draw again what was chosen in, and leave the focus where it was. */
function keepingFocus(draw) {
  const had = document.activeElement?.closest("[data-face]");
  const place = had?.parentElement;
  const face = had?.dataset.face;
  draw();
  place?.querySelector(`[data-face="${face}"]`)?.focus();
}

/** The faces of the photo: boxes on it, and a row to choose from. */
export function showFaces(faces, chosen) {
  const choose = (face) => change((params) => params.set("face", face));
  const text = (one) => {
    const first = one.results[0];
    if (one.error) return one.error.message;
    if (one.decision.answer === "nobody" || !first) return "nobody here";
    const likely = first.probability === null ? "" : `, ${percent(first.probability)}`;
    return `${one.decision.answer === "match" ? "" : "perhaps "}${nameOf(first)}${likely}`;
  };
  const entries = faces.map((one, place) => ({
    number: one.query.face ?? place,
    box: one.query.box,
    usable: !one.error,
    text: `Face ${(one.query.face ?? place) + 1}: ${text(one)}`,
    one,
  }));
  const chip = ({ number: face, box, usable, one }) =>
    h(
      "button",
      {
        type: "button",
        class: "face-chip",
        data: { face },
        "aria-pressed": String(face === chosen),
        disabled: !usable,
        on: { click: () => choose(face) },
      },
      stage.cut(box, 88),
      h("span", {}, h("b", {}, `Face ${face + 1}`), h("span", { class: "muted" }, text(one))),
    );
  keepingFocus(() => {
    stage.faces(entries, chosen, choose);
    fill(at("faces"), entries.length > 1 && entries.map(chip));
  });
}
