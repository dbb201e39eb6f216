// The server itself: its version, what it takes in, how far maintenance is, and how large tables are.
import type { VNode } from "preact";
import type { Schemas } from "../api/client";
import { useAsked } from "../api/use";
import { Shown } from "../components/states";
import { Table, type Column } from "../components/table";
import { Inert } from "../inert";
import { session } from "../session";
import { t, type Key } from "../texts";
import { clock, date } from "../time";
import { bytes, span, whole } from "../units";
import { Ingest } from "./server/ingest";

type Progress = Schemas["MaintenanceProgress"];
type Step = Progress["steps"][number];
type Size = Progress["tables"][number];

function Facts({ progress }: { progress: Progress }): VNode {
  const { rollups } = progress;
  const lag = rollups.lag_s;
  return (
    <dl class="facts panel big">
      <div><dt>{t("server.version")}</dt><dd>{session.value?.server_version}</dd></div>
      <div><dt>{t("server.endpoints")}</dt><dd>{session.value?.agent_endpoints.join(" ")}</dd></div>
      <div><dt>{t("server.worker")}</dt><dd>{progress.is_held ? t("server.held") : t("server.free")}</dd></div>
      <div><dt>{t("server.lag")}</dt><dd>{span(lag === null || lag === undefined ? null : lag * 1000)}</dd></div>
      <div><dt>{t("server.waiting")}</dt><dd>{whole(rollups.waiting)}</dd></div>
      <div><dt>{t("server.size")}</dt><dd>{bytes(progress.tables.reduce((sum, table) => sum + (table.bytes ?? 0), 0))}</dd></div>
    </dl>
  );
}

function steps(): Column<Step>[] {
  return [
    { id: "step", title: t("column.step"), wide: true, cell: (row) => row.step },
    { id: "state", title: t("column.state"), cell: (row) => row.error ? <span class="tag gone"><Inert text={row.error} /></span> : <span class="tag new">{t("server.good")}</span> },
    { id: "finished", title: t("column.finished"), number: true, cell: (row) => clock(row.finished_at) },
    { id: "duration", title: t("column.duration"), number: true, cell: (row) => span(row.duration_s === null || row.duration_s === undefined ? null : row.duration_s * 1000) },
    { id: "items", title: t("column.items"), number: true, cell: (row) => whole(row.items) },
    { id: "failures", title: t("column.failures"), number: true, cell: (row) => whole(row.failures) },
  ];
}

function tables(): Column<Size>[] {
  return [
    { id: "table", title: t("column.table"), wide: true, cell: (row) => row.table },
    { id: "bytes", title: t("column.bytes"), number: true, cell: (row) => bytes(row.bytes) },
    { id: "partitions", title: t("column.partitions"), number: true, cell: (row) => whole(row.partitions) },
    { id: "compressed", title: t("column.compressed"), number: true, cell: (row) => whole(row.compressed_partitions) },
    { id: "retention", title: t("column.retention"), number: true, cell: (row) => span(row.retention_s * 1000) },
    { id: "begins", title: t("column.begins"), number: true, cell: (row) => date(row.begins_at) },
  ];
}

type Replica = Schemas["Replica"];
const STATES: Record<string, Key> = { up: "replica.up", silent: "replica.silent", stopped: "replica.stopped" };

function replicas(): Column<Replica>[] {
  return [
    { id: "host", title: t("column.host"), wide: true, cell: (row) => <Inert text={row.host_name} /> },
    { id: "state", title: t("column.state"), cell: (row) => <span class={row.state === "up" ? "tag new" : row.state === "silent" ? "tag gone" : "tag"}>{t(STATES[row.state] ?? "replica.stopped")}</span> },
    { id: "version", title: t("server.version"), cell: (row) => row.version },
    { id: "door", title: t("replica.door"), cell: (row) => row.operator_door },
    { id: "started", title: t("replica.started"), number: true, cell: (row) => date(row.started_at) },
    { id: "seen", title: t("replica.seen"), number: true, cell: (row) => clock(row.seen_at) },
  ];
}

function Replicas(): VNode {
  const asked = useAsked<Schemas["Page_Replica"]>("/v1/replicas");
  return (
    <section class="panel tables" aria-label={t("replica.title")}>
      <h2>{t("replica.title")}</h2>
      <Shown of={asked}>{({ items }) => <Table label={t("replica.title")} columns={replicas()} rows={items} id={(row) => row.replica_id} />}</Shown>
    </section>
  );
}

export function ServerView(): VNode {
  const asked = useAsked<Progress>("/v1/maintenance");
  return (
    <div class="view">
      <div class="bar"><h1>{t("menu.server")}</h1></div>
      <Shown of={asked}>
        {(progress) => (
          <>
            <Facts progress={progress} />
            <Ingest />
            <Replicas />
            <section class="panel tables"><h2>{t("server.steps")}</h2><Table label={t("server.steps")} columns={steps()} rows={progress.steps} id={(row) => row.step} /></section>
            <section class="panel tables"><h2>{t("server.tables")}</h2><Table label={t("server.tables")} columns={tables()} rows={progress.tables} id={(row) => row.table} /></section>
          </>
        )}
      </Shown>
    </div>
  );
}
