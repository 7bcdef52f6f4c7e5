// Deleting: hidden at once, sent only when the time to undo is over or somebody confirms, and proved by a receipt.

import * as api from "./api.js";
import { announce, h } from "./dom.js";
import { open, prompt } from "./dialog.js";
import { fileOf, label as shown, plural, when } from "./format.js";
import { toast, undoable } from "./toast.js";

const UNDO_MS = 8000;
const away = new Set(); // ids that are hidden: not sent yet, being sent, or deleted

export const isAway = (imageId) => away.has(imageId);

/** Photos that came, perhaps under the name of one that was deleted. */
export const isBack = (imageIds) => imageIds.forEach((id) => away.delete(id));

function mark(imageIds, hidden) {
  for (const id of imageIds) hidden ? away.add(id) : away.delete(id);
  document.dispatchEvent(new CustomEvent("removal", { detail: { imageIds, hidden } }));
}

/** Begin to delete. Nothing is sent before the time is over; a page that is closed before deletes nothing. */
export function removeLater(imageIds) {
  const what = imageIds.length === 1 ? fileOf(imageIds[0]) : plural(imageIds.length, "photo");
  mark(imageIds, true);
  undoable(`${what} will be deleted.`, {
    shownMs: UNDO_MS,
    confirm: "Delete now",
    done: () => send(imageIds),
    undone: () => (mark(imageIds, false), announce("Not deleted.")),
  });
}

async function send(imageIds) {
  const receipts = [],
    failed = [];
  for (const id of imageIds) {
    try {
      receipts.push(await api.remove(id));
    } catch (error) {
      if (error.reason !== "not-found") failed.push([id, error.message]); // not there: somebody else deleted it
    }
  }
  mark(
    failed.map(([id]) => id),
    false,
  );
  if (failed.length) toast(`${fileOf(failed[0][0])} was not deleted: ${failed[0][1]}`);
  if (receipts.length) document.dispatchEvent(new CustomEvent("gallery-changed"));
  if (receipts.length)
    toast(`${plural(receipts.length, "photo")} deleted.`, [["Receipt", () => showReceipts(receipts)]], 12000);
}

/** Delete everything that has a label, once somebody has typed it again: how many that are, no page knows. */
export async function removeLabel(label) {
  const typed = await prompt(`Delete all photos of ${shown(label)}`, {
    text: `Type the label to confirm: ${label}`,
    action: "Delete all",
    hint: "Every photo with this label is deleted at once, on all pages of the gallery. There is no undo.",
  });
  if (typed === null) return;
  if (typed !== label.trim()) {
    toast(`Nothing was deleted: ${typed || "nothing"} is not ${label}.`);
    return;
  }
  try {
    const receipt = await api.removeLabel(label);
    mark(receipt.deleted, true);
    document.dispatchEvent(new CustomEvent("gallery-changed"));
    const said = `${plural(receipt.deleted.length, "photo")} deleted.`;
    toast(said, [["Receipt", () => showReceipts([receipt])]], 12000);
  } catch (error) {
    toast(`Nothing was deleted: ${error.message}`);
  }
}

const list = (title, lines) =>
  lines.length > 0 && [
    h("h3", {}, title),
    h(
      "ul",
      { class: "plain" },
      lines.map((one) => h("li", {}, one)),
    ),
  ];

function showReceipts(receipts) {
  const all = (name) => [...new Set(receipts.flatMap((one) => one[name]))];
  const pending = new Set(receipts.flatMap((one) => one.pending.map(({ what, until }) => `${what}: until ${until}`)));
  open(
    "What was deleted",
    h(
      "div",
      { class: "stack receipt" },
      h("p", { class: "muted" }, `${receipts.map((one) => one.receipt_id).join(", ")} · ${when(receipts.at(-1).at)}`),
      list("Photos", all("deleted")),
      list("Gone now", all("removed")),
      list("Not readable by anybody, but still in a file", [...pending]),
      list("Not kept by this service: look there yourself", all("not_ours")),
    ),
  );
}
