// A colour for each process, the same in every chart and table of a host: the culprit is a colour.
import { theme } from "../theme";

const DARK = [
  "#4f9fe0", "#e8853d", "#5cb871", "#e05c5c", "#a587db", "#c9b441", "#e07cbf", "#3fbdbd", "#b8875d", "#7f95ea", "#9fc15a", "#d98b8b",
  "#2f6fa8", "#b3611f", "#3d8a50", "#a83d3d", "#7a5cb0", "#968528", "#a9518f", "#268a8a", "#866042", "#566bb8", "#728f38", "#a66464",
];
const LIGHT = [
  "#2b7bbf", "#d96a1c", "#3a9650", "#c73e3e", "#7f5fc0", "#a8921a", "#c4559f", "#159494", "#946339", "#5870cf", "#7a9c32", "#b86a6a",
  "#7fb4e2", "#f0ab74", "#8acb99", "#e58f8f", "#b9a3e3", "#d6c771", "#e3a1cd", "#78cccc", "#c9a685", "#a1b0ec", "#b5d182", "#dfaaaa",
];

const places = new Map<string, number>();

/** Forgets who had which: on another host, others are the culprits. */
export function forget(): void {
  places.clear();
}

export function colourOf(key: string): string {
  let at = places.get(key);
  if (at === undefined) {
    at = places.size;
    places.set(key, at);
  }
  const palette = theme.value === "dark" ? DARK : LIGHT;
  return palette[at % palette.length] ?? "#888";
}

/** The colour of a process that some chart shows; undefined for the others. */
export function knownColour(key: string | null | undefined): string | undefined {
  return key !== null && key !== undefined && places.has(key) ? colourOf(key) : undefined;
}
