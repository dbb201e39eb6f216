// What is chosen on a host, as the address says it: a resource to sort by, and a moment.
import { place, select } from "../../router";
import { RESOURCES, type Resource } from "../../stack";
import { instant, iso, range, show } from "../../time";
import type { Chosen } from "../../components/stackoptions";

export function sortOf(): Resource {
  const asked = place.value.query.get("sort");
  return RESOURCES.find((resource) => resource === asked) ?? "cpu";
}

export const sortBy = (resource: Resource): void => select({ sort: resource === "cpu" ? null : resource }, true);

/** The chosen moment: the bucket that ended at `at` and is `span` seconds long. */
export function chosen(): Chosen | null {
  const at = place.value.query.get("at");
  if (at === null) return null;
  const to = instant(at) / 1000;
  const span = Number(place.value.query.get("span"));
  return { from: to - (span > 0 ? span : 60), to };
}

export function choose(resource: Resource, from: number, to: number): void {
  const span = Math.max(0.001, Math.round((to - from) * 1000) / 1000);
  select({ at: iso(to * 1000), span: String(span), sort: resource === "cpu" ? null : resource });
}

export const unchoose = (): void => select({ at: null, span: null });

export function zoom(from: number, to: number): void {
  const [begin, end] = [Math.min(from, to), Math.max(from, to)];
  if (end - begin < 2000) return;
  show(iso(begin), end >= Date.now() - 1000 ? "now" : iso(end));
}

/** The window that tables are of: the chosen moment, or all that the charts show. */
export function tableWindow(): { from: string; to: string } {
  const moment = chosen();
  return moment ? { from: iso(moment.from * 1000), to: iso(moment.to * 1000) } : range.value;
}
