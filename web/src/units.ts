// Numbers as people read them. Unknown is a dash, never 0.
import { locale, t, type Key } from "./texts";

export const UNKNOWN = "–";
export type Maybe = number | null | undefined;

const formats = new Map<string, Intl.NumberFormat>();

function digits(value: number, least: number, most: number): string {
  const key = `${locale.value} ${least} ${most}`;
  let format = formats.get(key);
  if (!format) {
    format = new Intl.NumberFormat(locale.value, { minimumFractionDigits: least, maximumFractionDigits: most });
    formats.set(key, format);
  }
  return format.format(value);
}

/** Three digits that count. */
export function short(value: Maybe): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 0.01) return digits(value, 0, 3);
  return size < 10 ? digits(value, 0, 2) : size < 100 ? digits(value, 0, 1) : digits(value, 0, 0);
}

export function whole(value: Maybe): string {
  return value === null || value === undefined ? UNKNOWN : digits(value, 0, 0);
}

export function ratio(value: Maybe): string {
  if (value === null || value === undefined) return UNKNOWN;
  const percent = value * 100;
  return `${digits(percent, 0, percent < 9.95 && percent > 0 ? 1 : 0)} %`;
}

const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value: Maybe): string {
  if (value === null || value === undefined) return UNKNOWN;
  let size = Math.abs(value);
  let unit = 0;
  while (size >= 1000 && unit < BINARY.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${short(Math.sign(value) * (unit === 0 ? Math.round(size) : size))} ${BINARY[unit]}`;
}

export const bytesPerSecond = (value: Maybe): string =>
  value === null || value === undefined ? UNKNOWN : `${bytes(value)}/s`;

/** Per second of what was counted over `ms`. */
export function perSecond(value: Maybe, ms: Maybe): number | null {
  if (value === null || value === undefined || !ms) return null;
  return (value / ms) * 1000;
}

const SECOND: [number, Key] = [1, "span.s"];
const SPANS: [number, Key][] = [[86_400, "span.d"], [3600, "span.h"], [60, "span.min"], SECOND];

/** A length of time, two units at most: `3 d 4 h`, `250 ms`. */
export function span(ms: Maybe): string {
  if (ms === null || ms === undefined) return UNKNOWN;
  if (ms < 1000) return t("span.ms", { n: short(ms) });
  const seconds = ms / 1000;
  if (seconds < 60) return t("span.s", { n: short(seconds) });
  const at = SPANS.findIndex(([size]) => seconds >= size);
  const [size, name] = SPANS[at] ?? SECOND;
  const count = Math.floor(seconds / size);
  const next = SPANS[at + 1];
  const rest = next ? Math.floor((seconds - count * size) / next[0]) : 0;
  const first = t(name, { n: count });
  return next && rest > 0 && count < 10 ? `${first} ${t(next[1], { n: rest })}` : first;
}
