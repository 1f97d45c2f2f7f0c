// Numbers and times as the page writes them. The only place that does.

/** `420 ms`, `7.3 s`, `74 s`, `12 min 05 s`, `3 h 20 min`, `2 d 4 h`. */
export function duration(ms: number): string {
  if (ms < 0) return "0 ms";
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_950) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 120) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${two(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${two(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long something has lasted, roughly: `17 s`, `3 min`, `5 h`, `12 d`. */
export function age(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3_600) return `${Math.floor(seconds / 3_600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

/** A duration as it grows: tenths of a second below 100 s, so that it is seen to live. */
export function ticking(ms: number): string {
  return ms < 100_000 ? `${(Math.max(0, ms) / 1_000).toFixed(1)} s` : duration(ms);
}

/** `512 MiB`, `1.5 GiB`, `2 TiB`. */
export function mib(value: number): string {
  if (value < 1_024) return `${Math.round(value)} MiB`;
  if (value < 1_024 * 1_024) return `${short(value / 1_024)} GiB`;
  return `${short(value / 1_024 / 1_024)} TiB`;
}

/** `0 B`, `14 KiB`, `81 MiB`, `1.2 GiB`. */
export function bytes(value: number): string {
  if (value < 1_024) return `${Math.round(value)} B`;
  if (value < 1_024 * 1_024) return `${short(value / 1_024)} KiB`;
  return mibOfBytes(value);
}

function mibOfBytes(value: number): string {
  const inMib = value / 1_024 / 1_024;
  return inMib < 1_024 ? `${short(inMib)} MiB` : mib(inMib);
}

/** `14 KiB/s`. */
export const rate = (bytesPerSecond: number) => `${bytes(bytesPerSecond)}/s`;

/** `0.42`, `3.1`, `12`; what is almost nothing is `<0.01`. */
export function short(value: number): string {
  if (value === 0) return "0";
  if (value < 0.01) return "<0.01";
  return value < 1
    ? value.toFixed(2)
    : value < 10
      ? value.toFixed(1).replace(/\.0$/, "")
      : String(Math.round(value));
}

/** 0 to 100, whole; never 100 before it is all there. */
export function percent(part: number, whole: number): number {
  if (whole <= 0) return 0;
  const exact = (part / whole) * 100;
  return part < whole ? Math.min(99, Math.floor(exact)) : 100;
}

/** `14:03:59` in the reader's own zone. */
export function clock(unix_ms: number): string {
  const at = new Date(unix_ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** The whole moment, for a title: `2026-11-21 14:03:59`. */
export function moment(unix_ms: number): string {
  const at = new Date(unix_ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(unix_ms)}`;
}

/** `1 host`, `2 hosts`. */
export const count = (n: number, one: string, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** A digest's first 12 digits. */
export const digest = (hex: string) => (hex.length > 12 ? `${hex.slice(0, 12)}…` : hex);

const two = (n: number) => String(n).padStart(2, "0");

/** The server's words as a sentence: `no host can take web` becomes `No host can take web.` */
export function sentence(text: string): string {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return begun === "" || /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
