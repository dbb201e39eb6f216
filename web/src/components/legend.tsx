// Who is who in a stack, with the value under the pointer, or the mean of the window.
import type { VNode } from "preact";
import { address, when } from "../router";
import { mean, type Layer } from "../stack";
import { t } from "../texts";
import { plain } from "../inert";
import { Chip } from "./chip";

interface Props {
  layers: Layer[];
  colours: string[];
  at: number | null;
  format: (value: number | null) => string;
  /** null: names lead nowhere. */
  host: string | null;
}

function label(layer: Layer): string {
  if (layer.kind === "remaining") return t("stack.remaining");
  if (layer.kind === "residual") return t("stack.residual");
  return layer.processId === null ? t("stack.undescribed") : layer.name;
}

export function Legend({ layers, colours, at, format, host }: Props): VNode {
  return (
    <ul class="legend">
      {layers.map((layer, n) => {
        const value = at === null ? mean(layer.values) : (layer.values[at] ?? null);
        const name = <bdi class="legend-name" title={plain(layer.commandLine).slice(0, 600)}>{label(layer)}</bdi>;
        return (
          <li key={layer.key}>
            <Chip colour={colours[n]} />
            {layer.processId === null || host === null ? name : <a data-here href={address("process", layer.processId, { ...when(), host })}>{name}</a>}
            <span class="legend-value">{format(value)}</span>
          </li>
        );
      })}
    </ul>
  );
}
