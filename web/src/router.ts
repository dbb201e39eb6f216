// Where we are. The address holds everything a view shows: its kind, its subject, the window of time
// and what is selected, so that a link shown to a colleague shows the same.
import { signal } from "@preact/signals";

export type View = "fleet" | "host" | "process" | "search" | "alerts" | "hosts" | "server" | "unknown";

export interface Place {
  view: View;
  /** What the view is of: a host's id or name, a process's md5; empty for the others. */
  subject: string;
  query: URLSearchParams;
}

export type Changes = Record<string, string | null>;

function parse(url: URL): Place {
  const [first = "", second = "", ...more] = url.pathname.split("/").slice(1);
  const subject = decodeURIComponent(second);
  const query = url.searchParams;
  const known = (view: View): Place => ({ view, subject, query });
  if (more.length > 0) return known("unknown");
  if (first === "") return known("fleet");
  if ((first === "host" || first === "process") && subject !== "") return known(first);
  if ((first === "search" || first === "alerts" || first === "hosts" || first === "server") && subject === "") return known(first);
  return known("unknown");
}

export const place = signal<Place>(parse(new URL(location.href)));

const read = (): void => {
  place.value = parse(new URL(location.href));
};
addEventListener("popstate", read);

/** The address of a view. Empty values are left out. */
export function address(view: Exclude<View, "unknown">, subject = "", query: Changes = {}): string {
  const path = view === "fleet" ? "/" : `/${view}${subject === "" ? "" : `/${encodeURIComponent(subject)}`}`;
  return path + suffix(new URLSearchParams(), query);
}

function suffix(query: URLSearchParams, changes: Changes): string {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

export function go(to: string): void {
  history.pushState(null, "", to);
  read();
  scrollTo(0, 0);
}

/** Changes what is selected here. What is typed replaces the entry in the history, a choice adds one. */
export function select(changes: Changes, replace = false): void {
  const to = location.pathname + suffix(new URLSearchParams(location.search), changes);
  if (to === location.pathname + location.search) return;
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  read();
}

/** The part of the address that every view shares: when. */
export function when(): Changes {
  const { query } = place.value;
  return { from: query.get("from"), to: query.get("to") };
}

/** Follows links within the page without loading it again. */
export function follow(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link || link.target !== "" || link.origin !== location.origin || !link.hasAttribute("data-here")) return;
  event.preventDefault();
  go(link.pathname + link.search);
}
