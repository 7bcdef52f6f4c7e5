// Numbers, names and times as people read them.

export const number = (value) => value.toLocaleString("en");
export const score = (value) => value.toFixed(3);

export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

export function bytes(value) {
  return value < 1 << 20 ? `${Math.max(1, Math.round(value / 1024))} KB` : `${(value / (1 << 20)).toFixed(1)} MB`;
}

export function milliseconds(seconds) {
  const ms = 1000 * seconds;
  return ms >= 1000 ? `${(ms / 1000).toFixed(1)} s` : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** Never 100 % or 0 %: a probability is not a certainty. */
export function percent(probability) {
  if (probability > 0.999) return "> 99.9 %";
  if (probability < 0.001) return "< 0.1 %";
  const value = 100 * probability;
  return `${value >= 98.95 || value <= 1.05 ? value.toFixed(1) : Math.round(value)} %`;
}

/** 0.001 -> "1 in 1,000". */
export function rate(far) {
  return `1 in ${number(Math.round(1 / far))}`;
}

export function label(text) {
  return /^\d+$/.test(text) ? `identity ${text}` : text.replaceAll("_", " ");
}

export const personName = (person, name) => name ?? `person ${person}`;

/** The best name that is known of an image: what people called it first, its file last. */
export function nameOf(image) {
  if (image.person_name) return image.person_name;
  if (image.label !== null && image.label !== undefined) return label(image.label);
  return image.person === null || image.person === undefined ? fileOf(image.image_id) : `person ${image.person}`;
}

export const fileOf = (imageId) => imageId.slice(imageId.lastIndexOf("/") + 1);

export function when(text) {
  return new Date(text).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

export const short = (fingerprint) => fingerprint.slice(0, 12);

const PROBLEMS = {
  "face-too-small": "too small to compare by",
  "face-blurred": "too blurred to compare by",
  "face-turned": "turned away too far",
};

/** Why a face is not used. */
export const problem = (reason) => PROBLEMS[reason] ?? reason;
