// Which processes ended, how, and what their whole lives used.
import type { VNode } from "preact";
import { path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { ProcessCell } from "../../components/process";
import { Empty, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { t } from "../../texts";
import { clock } from "../../time";
import { bytes, span, UNKNOWN, whole } from "../../units";
import { tableWindow } from "./selection";

type Exit = Schemas["Exit"];

function How({ row }: { row: Exit }): VNode {
  if (row.exit_signal) return <span class="tag gone">{t("exit.signal", { signal: row.exit_signal })}</span>;
  if (row.exit_code === null || row.exit_code === undefined) return <span class="unknown">{UNKNOWN}</span>;
  return row.exit_code === 0 ? <span>0</span> : <span class="tag gone">{row.exit_code}</span>;
}

const cpu = (row: Exit): number | null =>
  row.cpu_user_us === null || row.cpu_user_us === undefined ? null : (row.cpu_user_us + (row.cpu_system_us ?? 0)) / 1000;

function columns(host: string): Column<Exit>[] {
  return [
    { id: "time", title: t("column.ended"), cell: (row) => clock(row.exit_time ?? row.sampled_at) },
    { id: "process", title: t("column.process"), wide: true, cell: (row) => <ProcessCell processId={row.process_id} commandLine={row.command_line} host={host} /> },
    { id: "count", title: t("column.count"), number: true, cell: (row) => whole(row.process_count) },
    { id: "pid", title: t("column.pid"), number: true, cell: (row) => row.pid ?? UNKNOWN },
    { id: "user", title: t("column.user"), cell: (row) => <Inert text={row.owner} /> },
    { id: "how", title: t("column.status"), number: true, cell: (row) => <How row={row} /> },
    { id: "life", title: t("column.lifetime"), number: true, cell: (row) => span(row.lifetime_us === null || row.lifetime_us === undefined ? null : row.lifetime_us / 1000) },
    { id: "cpu", title: t("column.cpuTime"), number: true, cell: (row) => span(cpu(row)) },
    { id: "memory", title: t("column.memory"), number: true, cell: (row) => bytes(row.memory_usage_bytes_max) },
    { id: "read", title: t("column.read"), number: true, cell: (row) => bytes(row.disk_read_bytes) },
    { id: "write", title: t("column.write"), number: true, cell: (row) => bytes(row.disk_write_bytes) },
  ];
}

export function Exits({ host }: { host: string }): VNode {
  const asked = useAsked<Schemas["ExitsAnswer"]>(path("/v1/exits", { host, ...tableWindow(), limit: 200 }));
  return (
    <Shown of={asked}>
      {({ items }) => items.length === 0
        ? <Empty>{t("exit.empty")}</Empty>
        : <Table label={t("tab.exits")} columns={columns(host)} rows={items} id={(row) => String(row.place)} />}
    </Shown>
  );
}
