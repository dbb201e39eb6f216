// A share as a bar with its number.
import type { VNode } from "preact";
import { ratio, UNKNOWN } from "../units";

export function Meter({ share, label }: { share: number | null | undefined; label: string }): VNode {
  if (share === null || share === undefined) return <span class="unknown">{UNKNOWN}</span>;
  const state = share >= 0.9 ? "full" : share >= 0.75 ? "high" : "";
  return (
    <span class={`meter ${state}`} role="img" aria-label={`${label} ${ratio(share)}`}>
      <span class="track"><span class="fill" style={{ width: `${Math.min(100, Math.max(0, share * 100))}%` }} /></span>
      <span class="meter-value">{ratio(share)}</span>
    </span>
  );
}
