// Labels as people type them: `name=value`, cut at the first sign.

export interface Typed {
  labels: Record<string, string>;
  /** The first part that is none; null: all of them are. */
  wrong: string | null;
}

export function labelsIn(parts: string[]): Typed {
  const labels: Record<string, string> = {};
  for (const part of parts.map((one) => one.trim()).filter(Boolean)) {
    const at = part.indexOf("=");
    if (at < 1) return { labels, wrong: part };
    labels[part.slice(0, at).trim()] = part.slice(at + 1).trim();
  }
  return { labels, wrong: null };
}
