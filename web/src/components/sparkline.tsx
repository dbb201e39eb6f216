// A line of 48 points in the height of a row, from 0 to 1.
import type { VNode } from "preact";

const WIDTH = 120;
const HEIGHT = 22;

function outline(values: readonly (number | null | undefined)[]): string {
  const step = WIDTH / Math.max(1, values.length - 1);
  let pen = "M";
  let out = "";
  values.forEach((value, at) => {
    if (value === null || value === undefined) {
      pen = "M";
      return;
    }
    const y = HEIGHT - 1 - Math.min(1, Math.max(0, value)) * (HEIGHT - 2);
    out += `${pen}${(at * step).toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  });
  return out;
}

interface Props {
  values: readonly (number | null | undefined)[] | undefined;
  kind: "cpu" | "memory";
}

export function Sparkline({ values, kind }: Props): VNode {
  return (
    <svg class={`spark ${kind}`} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      {values && <path d={outline(values)} />}
    </svg>
  );
}
