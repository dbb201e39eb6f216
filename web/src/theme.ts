// Dark or light: as the system says, until somebody chooses.
import { computed, effect, signal } from "@preact/signals";

export type Theme = "dark" | "light";

const KEPT = "procfleet.theme";
const system = matchMedia("(prefers-color-scheme: light)");
const isSystemLight = signal(system.matches);
system.addEventListener("change", () => (isSystemLight.value = system.matches));

const kept = localStorage.getItem(KEPT);
const chosen = signal<Theme | null>(kept === "dark" || kept === "light" ? kept : null);

export const theme = computed<Theme>(() => chosen.value ?? (isSystemLight.value ? "light" : "dark"));

effect(() => {
  document.documentElement.dataset["theme"] = theme.value;
});

export function toggle(): void {
  chosen.value = theme.value === "dark" ? "light" : "dark";
  localStorage.setItem(KEPT, chosen.value);
}

/** A colour of the style sheet, for canvases. Reading it follows the theme. */
export function colour(name: string): string {
  void theme.value;
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
