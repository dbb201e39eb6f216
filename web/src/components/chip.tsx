// A spot of a process's colour, as charts and tables show it.
import type { VNode } from "preact";

export function Chip({ colour }: { colour: string | undefined }): VNode {
  return (
    <svg class="chip" viewBox="0 0 10 10" aria-hidden="true">
      {colour && <rect width="10" height="10" rx="2" fill={colour} />}
    </svg>
  );
}
