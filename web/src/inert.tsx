// Texts that come from hosts. Whoever can start a process chooses its command line, so it is hostile
// until shown otherwise: it becomes text nodes and nothing else, its direction cannot leave its own
// box, and characters that would hide or reorder others are shown by their number.
import type { VNode } from "preact";

/** Controls, formats (bidi, zero width, tags), separators, lone surrogates, private use; and letters and marks that show nothing. */
const HIDDEN =
  /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0]/gu;

const named = (character: string): string =>
  `U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}`;

/** For attributes and titles: the same as plain text. */
export function plain(text: string | null | undefined): string {
  return (text ?? "").replace(HIDDEN, (character) => `⟨${named(character)}⟩`);
}

function parts(text: string): (string | VNode)[] {
  const out: (string | VNode)[] = [];
  let end = 0;
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > end) out.push(text.slice(end, match.index));
    out.push(<span class="hidden-character">{named(match[0])}</span>);
    end = match.index + match[0].length;
  }
  if (end < text.length) out.push(text.slice(end));
  return out;
}

interface Props {
  text: string | null | undefined;
  class?: string;
  /** Said when the text is unknown. */
  unknown?: string;
}

export function Inert({ text, class: name, unknown = "–" }: Props): VNode {
  if (text === null || text === undefined) return <span class="unknown">{unknown}</span>;
  return (
    <bdi dir="ltr" class={name ?? "inert"} title={text.length > 40 ? plain(text).slice(0, 600) : undefined}>
      {parts(text)}
    </bdi>
  );
}
