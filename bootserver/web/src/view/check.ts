// What a form checks before it asks: the rules of proto::ids and proto::vm, so that a slip is seen at once. The
// server checks again; its word counts.

const NAME = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
const MAC = /^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i;

/** Each gives what is wrong, or null. */
export const check = {
  name: (text: string) =>
    NAME.test(text) ? null : "1 to 63 of a–z, 0–9 and -, beginning and ending with a letter or digit",
  mac: (text: string) => (MAC.test(text) ? null : "six bytes, such as 52:54:00:aa:bb:01"),
  /** `text` empty is right where a value may be left out. */
  whole: (text: string, least: number, most: number) => {
    const value = Number(text);
    return /^\d+$/.test(text) && value >= least && value <= most
      ? null
      : `a whole number from ${least} to ${most}`;
  },
  password: (text: string) => {
    const length = [...text].length;
    return length >= 10 && length <= 200 ? null : "10 to 200 characters";
  },
  given: (text: string) => (text.trim() ? null : "needed"),
};

/** `a=b, c=d` as labels; null where one is none. */
export function labelsOf(text: string): Record<string, string> | null {
  const labels: Record<string, string> = {};
  for (const part of text.split(",")) {
    const [key = "", ...rest] = part.split("=");
    const value = rest.join("=").trim();
    if (part.trim() === "") continue;
    if (key.trim() === "" || value === "") return null;
    labels[key.trim()] = value;
  }
  return labels;
}

/** Null or the value: an empty field leaves the choice to the server. */
export const optional = (text: string) => (text.trim() === "" ? null : text.trim());
