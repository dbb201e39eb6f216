// A stack with its title, its sum and its legend.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { colourOf } from "./colours";
import { Legend } from "./legend";
import { StackChart } from "./stackchart";
import type { Chosen } from "./stackoptions";
import { mean, type Layer, type Stack } from "../stack";
import { colour } from "../theme";
import { clock } from "../time";
import { t } from "../texts";

interface Props {
  title: string;
  /** What the numbers are. */
  unit: string;
  stack: Stack;
  format: (value: number | null) => string;
  /** Whether the numbers are bytes. */
  binary: boolean;
  bounds: [number, number];
  chosen: Chosen | null;
  host: string;
  choose: (from: number, to: number) => void;
  zoom: (from: number, to: number) => void;
  /** Marked as the one that the table is sorted by. */
  sorted?: boolean;
  /** Names are not those of processes and lead nowhere. */
  plainNames?: boolean;
}

function colourFor(layer: Layer): string {
  if (layer.kind === "remaining") return colour("remaining");
  if (layer.kind === "residual") return colour("residual");
  return colourOf(layer.key);
}

function sumAt({ layers, total }: Stack, at: number): number | null {
  const sum = layers.reduce((sum, layer) => sum + (layer.values[at] ?? 0), 0);
  return total?.[at] ?? sum;
}

export function StackPanel(props: Props): VNode {
  const { stack, title, unit, format, host, bounds, chosen } = props;
  const [at, hover] = useState<number | null>(null);
  const colours = stack.layers.map(colourFor);
  const known = at !== null && at < stack.times.length ? at : null;
  const all = stack.times.map((_, n) => sumAt(stack, n));
  const time = known === null ? null : (stack.times[known] ?? 0) * 1000;
  return (
    <section class={props.sorted ? "panel sorted" : "panel"} aria-label={title}>
      <header>
        <h2>{title}</h2>
        <span class="unit">{unit}</span>
        <span class="moment">{time === null ? t("stack.mean") : clock(time)}</span>
        <strong class="sum">{format(known === null ? mean(all) : (all[known] ?? null))}</strong>
      </header>
      {stack.times.length === 0 || stack.layers.length === 0 ? (
        <div class="plot state">{t("stack.empty")}</div>
      ) : (
        <StackChart
          label={t("stack.label", { what: title })} stack={stack} colours={colours} format={format} binary={props.binary} bounds={bounds} chosen={chosen}
          hover={hover} zoom={props.zoom} choose={(n) => props.choose(stack.begins[n] ?? 0, stack.times[n] ?? 0)}
        />
      )}
      <Legend layers={stack.layers} colours={colours} at={known} format={format} host={props.plainNames ? null : host} />
    </section>
  );
}
