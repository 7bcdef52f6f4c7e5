// What the server is and can do: asked once, and again whenever the gallery was changed.

import * as api from "./api.js";

const USUAL_FAR = 0.001;

/** GET /v1/info, with `kind`: people or places; null until it was answered. */
export let info = null;

export async function loadInfo() {
  const said = await api.info();
  info = { ...said, kind: ["face", "aligned"].includes(said.model.crop) ? "people" : "places" };
  return info;
}

/** The false-accept rates that can be asked for: { far, threshold (null: nothing is promised), why }. */
export const rates = () => info?.calibration?.rates ?? [];

/** The rate that a search gets that does not say. */
export const usualFar = () => {
  const known = rates().map((one) => one.far);
  return known.length && !known.includes(USUAL_FAR) ? known[0] : USUAL_FAR;
};

export const hasProbabilities = () => Boolean(info?.calibration && !info.calibration.why);
