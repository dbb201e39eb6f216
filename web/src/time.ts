// The window of time that a view shows, as the address says it: `from` and `to` are RFC 3339, `now`,
// or back from now such as `-1h`, which is how REST reads them, too.
import { computed, effect, signal } from "@preact/signals";
import { place, select } from "./router";
import { locale } from "./texts";

export const DEFAULT_FROM = "-1h";
export const PRESETS = ["-15m", "-1h", "-6h", "-1d", "-7d", "-30d"] as const;
const REFRESH_MS = 10_000;
const SIZES: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** Grows when it is time to look again. */
export const beat = signal(0);
/** Whether somebody paused the refresh. */
export const paused = signal(false);

export interface Window {
  from: string;
  to: string;
}

export const range = computed<Window>(() => {
  const { query } = place.value;
  return { from: query.get("from") ?? DEFAULT_FROM, to: query.get("to") ?? "now" };
});

/** Whether the window moves with the clock. */
export const isLive = computed(() => range.value.to === "now");

/** The moment a word of the address stands for, ms since the Unix epoch. */
export function instant(text: string, now = Date.now()): number {
  if (text === "now") return now;
  const back = /^-(\d+)([smhd])$/.exec(text);
  if (back) return now - Number(back[1]) * (SIZES[back[2] ?? "s"] ?? 1000);
  const at = Date.parse(text);
  return Number.isNaN(at) ? now : at;
}

export function bounds(window: Window): [number, number] {
  const now = Date.now();
  return [instant(window.from, now), instant(window.to, now)];
}

export const iso = (ms: number): string => new Date(Math.round(ms)).toISOString();

/** Shows another window; what was selected in the old one stays if it lies in the new one. */
export function show(from: string, to: string): void {
  const at = place.value.query.get("at");
  const [begin, end] = bounds({ from, to });
  const kept = at !== null && instant(at) > begin && instant(at) <= end;
  const changes = { from: from === DEFAULT_FROM && to === "now" ? null : from, to: to === "now" ? null : to };
  select(kept ? changes : { ...changes, at: null, span: null });
}

/** Moves the window by a share of its length, or makes it so many times as long. */
export function shift(share: number, times = 1): void {
  const [from, to] = bounds(range.value);
  const length = to - from;
  const middle = (from + to) / 2 + share * length;
  const half = (length * times) / 2;
  const end = middle + half;
  show(iso(middle - half), end >= Date.now() - 1000 ? "now" : iso(end));
}

effect(() => {
  if (!isLive.value || paused.value) return;
  const timer = setInterval(() => {
    if (document.visibilityState === "visible") beat.value += 1;
  }, REFRESH_MS);
  return () => clearInterval(timer);
});

/** What is asked again with every beat; nothing while the window stands still. */
export const pulse = computed(() => (isLive.value ? beat.value : -1));

export function clock(ms: number | string | null | undefined, withSeconds = true): string {
  if (ms === null || ms === undefined) return "–";
  const at = new Date(ms);
  const time = at.toLocaleTimeString(locale.value, {
    hour: "2-digit", minute: "2-digit", hour12: false, ...(withSeconds ? { second: "2-digit" } : {}),
  });
  if (Date.now() - at.getTime() < 12 * 3_600_000 && at.getDate() === new Date().getDate()) return time;
  return `${at.toLocaleDateString(locale.value, { month: "short", day: "numeric" })} ${time}`;
}

export function date(ms: number | string | null | undefined): string {
  if (ms === null || ms === undefined) return "–";
  return new Date(ms).toLocaleString(locale.value, {
    year: "numeric", month: "2-digit", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false,
  });
}
