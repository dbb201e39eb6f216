// CPU, memory, disk and network of a host, stacked by process.
import type { VNode } from "preact";
import { useMemo } from "preact/hooks";
import { hostPath, path, type Schemas } from "../../api/client";
import { useAsked, type Asked } from "../../api/use";
import { StackPanel } from "../../components/stackpanel";
import { Shown } from "../../components/states";
import { RESOURCES, stackOf, totalAt, type Resource } from "../../stack";
import { t, type Key } from "../../texts";
import { bounds, range } from "../../time";
import { bytes, bytesPerSecond, short } from "../../units";
import { choose, chosen, sortOf, zoom } from "./selection";

export const TITLES: Record<Resource, Key> = {
  cpu: "resource.cpu", memory: "resource.memory", disk: "resource.disk", network: "resource.network",
};
const UNITS: Record<Resource, Key> = {
  cpu: "unit.cores", memory: "unit.resident", disk: "unit.disk", network: "unit.network",
};
const FORMATS: Record<Resource, (value: number | null) => string> = {
  cpu: short, memory: bytes, disk: bytesPerSecond, network: bytesPerSecond,
};
/** Processes with a colour of their own. */
const LAYERS = 10;

interface Props {
  host: string;
  resource: Resource;
  samples: Schemas["HostSeriesAnswer"] | null;
}

function Chart({ host, resource, samples }: Props): VNode {
  const { from, to } = range.value;
  const asked: Asked<Schemas["StackAnswer"]> = useAsked(path(hostPath(host, "/stack"), { from, to, sort: resource, limit: LAYERS }));
  const { data } = asked;
  const stack = useMemo(() => {
    if (!data) return null;
    const stack = stackOf(data, resource);
    return { ...stack, total: samples ? totalAt(stack, samples.samples, resource) : null };
  }, [data, samples]);
  const [begin, end] = data && !asked.loading ? [Date.parse(data.from), Date.parse(data.to)] : bounds(range.value);
  const moment = chosen();
  return (
    <Shown of={asked}>
      {() => stack && (
        <StackPanel
          title={t(TITLES[resource])} unit={t(UNITS[resource])} stack={stack} binary={resource !== "cpu"} format={FORMATS[resource]} host={host}
          bounds={[begin / 1000, end / 1000]} chosen={moment} sorted={sortOf() === resource}
          choose={(from, to) => choose(resource, from, to)} zoom={zoom}
        />
      )}
    </Shown>
  );
}

export function Charts({ host }: { host: string }): VNode {
  const { from, to } = range.value;
  const samples = useAsked<Schemas["HostSeriesAnswer"]>(path(hostPath(host, "/samples"), { from, to }));
  const coverage = samples.data?.coverage;
  return (
    <>
      {coverage && !coverage.complete && coverage.missing_ms > 0 && coverage.expected_ms > 0 && (
        <p class="notice">{t("host.incomplete", { percent: Math.max(1, Math.round((100 * coverage.missing_ms) / coverage.expected_ms)) })}</p>
      )}
      <div class="charts">
        {RESOURCES.map((resource) => <Chart key={resource} host={host} resource={resource} samples={samples.data} />)}
      </div>
    </>
  );
}
