// What a process used on a host, stacked by its runs.
import type { VNode } from "preact";
import { useMemo } from "preact/hooks";
import { hostPath, path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { StackPanel } from "../../components/stackpanel";
import { Shown } from "../../components/states";
import { RESOURCES, type Resource, type Stack } from "../../stack";
import { t } from "../../texts";
import { range } from "../../time";
import { bytes, bytesPerSecond, perSecond, short } from "../../units";
import { TITLES } from "../host/charts";
import { zoom } from "../host/selection";

type Answer = Schemas["ProcessSeriesAnswer"];
type Point = Schemas["ProcessPoint"];

const FORMATS: Record<Resource, (value: number | null) => string> = { cpu: short, memory: bytes, disk: bytesPerSecond, network: bytesPerSecond };

function sum(one: number | null | undefined, other: number | null | undefined): number | null {
  return one === null || one === undefined ? (other ?? null) : one + (other ?? 0);
}

function value(point: Point, resource: Resource): number | null {
  const ms = point.interval_ms;
  switch (resource) {
    case "cpu": {
      const cpu = perSecond(sum(point.cpu_user_us, point.cpu_system_us), ms);
      return cpu === null ? null : cpu / 1e6;
    }
    case "memory": return point.memory_usage_bytes ?? null;
    case "disk": return perSecond(sum(point.disk_read_bytes, point.disk_write_bytes), ms);
    case "network": return perSecond(sum(point.network_receive_bytes, point.network_transmit_bytes), ms);
  }
}

function stackOf(answer: Answer, resource: Resource): Stack {
  const known = answer.samples.filter((point) => point.sample_count > 0);
  const times = [...new Set(known.map((point) => Date.parse(point.sampled_at) / 1000))].sort((one, other) => one - other);
  const places = new Map(times.map((time, at) => [time, at]));
  const begins = [...times];
  const pids = new Map(answer.instances.map((instance) => [instance.instance_id, instance.pid]));
  const layers = new Map<string, Stack["layers"][number]>();
  for (const point of known) {
    const time = Date.parse(point.sampled_at) / 1000;
    const at = places.get(time) ?? 0;
    const key = point.instance_id;
    const name = `${t("column.pid")} ${pids.get(key) ?? "?"}`;
    const layer = layers.get(key) ?? { key, kind: "process" as const, name, commandLine: null, processId: key, values: times.map(() => null) };
    layers.set(key, layer);
    layer.values[at] = value(point, resource);
    begins[at] = Math.min(begins[at] ?? time, time - (answer.step_s ?? (point.interval_ms ?? 0) / 1000));
  }
  const shown = [...layers.values()].filter((layer) => layer.values.some((value) => value !== null));
  return { times, begins, layers: shown, total: null };
}

function Charts({ answer, host }: { answer: Answer; host: string }): VNode {
  const stacks = useMemo(() => RESOURCES.map((resource) => [resource, stackOf(answer, resource)] as const), [answer]);
  const bounds: [number, number] = [Date.parse(answer.from) / 1000, Date.parse(answer.to) / 1000];
  return (
    <div class="charts">
      {stacks.map(([resource, stack]) => (
        <StackPanel
          key={resource} title={t(TITLES[resource])} unit={t("process.byRun")} stack={stack} binary={resource !== "cpu"} format={FORMATS[resource]} bounds={bounds}
          chosen={null} host={host} choose={() => undefined} zoom={zoom} plainNames
        />
      ))}
    </div>
  );
}

export function Usage({ host, process }: { host: string; process: string }): VNode {
  const { from, to } = range.value;
  const asked = useAsked<Answer>(path(hostPath(host, `/processes/${encodeURIComponent(process)}/samples`), { from, to }));
  return <Shown of={asked}>{(answer) => <Charts answer={answer} host={host} />}</Shown>;
}
