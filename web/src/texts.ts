// All texts, in every language: `texts/<language>.json`. A key that one language lacks does not
// compile; a test compares the placeholders.
import { computed, effect, signal } from "@preact/signals";
import en from "./texts/en.json";
import zh from "./texts/zh.json";

export type Key = keyof typeof en;
type Texts = Record<Key, string>;

const LANGUAGES = { en, zh } satisfies Record<string, Texts>;
export type Language = keyof typeof LANGUAGES;
export const languages: readonly { id: Language; name: string }[] = [
  { id: "en", name: "English" },
  { id: "zh", name: "中文" },
];

const KEPT = "procfleet.language";

function first(): Language {
  const kept = localStorage.getItem(KEPT);
  if (kept === "en" || kept === "zh") return kept;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export const language = signal<Language>(first());
/** For `Intl`. */
export const locale = computed(() => (language.value === "zh" ? "zh-CN" : "en-GB"));

effect(() => {
  document.documentElement.lang = language.value === "zh" ? "zh-CN" : "en";
});

export function speak(chosen: Language): void {
  localStorage.setItem(KEPT, chosen);
  language.value = chosen;
}

/** The text of `key`, its `{placeholders}` filled in. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  const text: string = LANGUAGES[language.value][key];
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}
