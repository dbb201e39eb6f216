// All hosts: who is heard of, who is busy. The filter is part of the address.
import type { VNode } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { Schemas } from "../api/client";
import { LIFE_TEXTS, LIVES, Liveness, lifeOf, type Life } from "../components/liveness";
import { Meter } from "../components/meter";
import { RangePicker } from "../components/range";
import { Sparkline } from "../components/sparkline";
import { Empty, Shown } from "../components/states";
import { Virtual } from "../components/virtual";
import { Inert } from "../inert";
import { address, place, select, when } from "../router";
import { t, type Key } from "../texts";
import { bytes, short, whole } from "../units";
import { orderOf, sorted, type Order } from "./fleet/order";
import { matches } from "./fleet/filter";
import { useHosts } from "./fleet/hosts";
import { useSparklines, type Sparklines } from "./fleet/sparklines";

type Host = Schemas["HostSummary"];
const ROW = 34;
const HEADS: { order: Order | null; text: Key; class: string }[] = [
  { order: "name", text: "column.host", class: "host-name" },
  { order: "life", text: "column.life", class: "host-life" },
  { order: "cpu", text: "column.cpu", class: "host-meter" },
  { order: null, text: "column.cpuLine", class: "host-spark" },
  { order: "memory", text: "column.memory", class: "host-meter" },
  { order: null, text: "column.memoryLine", class: "host-spark" },
  { order: "load", text: "column.load", class: "host-load" },
  { order: null, text: "column.size", class: "host-size" },
  { order: null, text: "column.labels", class: "host-labels" },
];

const share = (host: Host): number | null =>
  host.memory_used_bytes === null || host.memory_used_bytes === undefined || !host.memory_total_bytes ? null : host.memory_used_bytes / host.memory_total_bytes;

function Head(): VNode {
  const order = orderOf();
  return (
    <div role="row" class="host-row host-heads">
      {HEADS.map((head) => (
        <span key={head.text} role="columnheader" class={head.class} aria-sort={head.order === order ? (order === "name" ? "ascending" : "descending") : undefined}>
          {head.order
            ? <button type="button" class="sort" onClick={() => select({ order: head.order === "name" ? null : head.order }, true)}>{t(head.text)}{head.order === order && <span aria-hidden="true"> ▾</span>}</button>
            : t(head.text)}
        </span>
      ))}
    </div>
  );
}

function Row({ host, index, lines }: { host: Host; index: number; lines: Sparklines }): VNode {
  const line = lines.get(host.host_id);
  const labels = Object.entries((host.labels ?? {}) as Record<string, string>);
  return (
    <div role="row" aria-rowindex={index + 2} class={`host-row ${lifeOf(host)}`}>
      <span role="cell" class="host-name"><a data-here href={address("host", host.host_id, when())}><Inert text={host.host_name} /></a></span>
      <span role="cell" class="host-life"><Liveness host={host} /></span>
      <span role="cell" class="host-meter"><Meter label={t("column.cpu")} share={host.cpu_utilization_ratio} /></span>
      <span role="cell" class="host-spark"><Sparkline kind="cpu" values={line?.cpu_utilization_ratio} /></span>
      <span role="cell" class="host-meter"><Meter label={t("column.memory")} share={share(host)} /></span>
      <span role="cell" class="host-spark"><Sparkline kind="memory" values={line?.memory_utilization_ratio} /></span>
      <span role="cell" class="host-load">{short(host.load_1m)}</span>
      <span role="cell" class="host-size">{t("fleet.size", { cpus: whole(host.cpu_count), memory: bytes(host.memory_total_bytes) })}</span>
      <span role="cell" class="host-labels">{labels.map(([name, value]) => <span key={name} class="label"><Inert text={`${name}=${value}`} /></span>)}</span>
    </div>
  );
}

function Counts({ hosts }: { hosts: Host[] }): VNode {
  const counts = new Map<Life, number>();
  for (const host of hosts) counts.set(lifeOf(host), (counts.get(lifeOf(host)) ?? 0) + 1);
  return (
    <span class="counts" role="status">
      <strong>{t("fleet.count", { count: whole(hosts.length) })}</strong>
      {LIVES.filter((life) => counts.has(life)).map((life) => <span key={life} class={`life ${life}`}><span class="dot" aria-hidden="true" />{whole(counts.get(life))} {t(LIFE_TEXTS[life])}</span>)}
    </span>
  );
}

function List({ hosts }: { hosts: Host[] }): VNode {
  const [seen, see] = useState<Host[]>([]);
  const lines = useSparklines(seen);
  return (
    <Virtual
      label={t("menu.fleet")} rows={hosts} height={ROW} head={<Head />} id={(host) => host.host_id} seen={see}
      row={(host, index) => <Row key={host.host_id} host={host} index={index} lines={lines} />}
    />
  );
}

export function FleetView(): VNode {
  const asked = useHosts();
  const filter = place.value.query.get("q") ?? "";
  const order = orderOf();
  const hosts = useMemo(() => sorted((asked.data ?? []).filter((host) => matches(host, filter)), order), [asked.data, filter, order]);
  return (
    <div class="view fleet">
      <div class="bar">
        <h1 class="unseen">{t("menu.fleet")}</h1>
        <input type="search" class="filter" aria-label={t("fleet.filter")} placeholder={t("fleet.filterHint")} value={filter} onInput={(event) => select({ q: event.currentTarget.value }, true)} />
        <Counts hosts={hosts} />
        <RangePicker />
      </div>
      <Shown of={asked}>
        {(all) => {
          if (all.length === 0) return <Empty>{t("fleet.empty")} <a data-here href={address("hosts")}>{t("fleet.enrol")}</a></Empty>;
          return hosts.length === 0 ? <Empty>{t("fleet.none")}</Empty> : <List hosts={hosts} />;
        }}
      </Shown>
    </div>
  );
}

