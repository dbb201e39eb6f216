// Who used what at the chosen moment, or in the window.
import type { ComponentChildren, VNode } from "preact";
import { hostPath, path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { ProcessCell } from "../../components/process";
import { Empty, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import type { Resource } from "../../stack";
import { t } from "../../texts";
import { bytes, bytesPerSecond, perSecond, short, UNKNOWN, whole } from "../../units";
import { sortBy, sortOf, tableWindow } from "./selection";

type Usage = Schemas["Usage"];
const ROWS = 50;

/** systemd's unit, or the container: where it belongs. */
function Home({ row }: { row: Usage }): VNode {
  const container = row.container_id;
  if (container) return <Inert text={container.slice(0, 12)} />;
  return <Inert text={row.systemd_unit ?? (row.cgroup === "/" ? null : row.cgroup)} />;
}

function subject(row: Usage, host: string): ComponentChildren {
  if (row.place === null || row.place === undefined) {
    return <span class="process"><span class="chip" /><em>{row.instance_id === "0" ? t("row.residual", { count: whole(row.process_count) }) : t("row.remaining", { count: whole(row.instance_count) })}</em></span>;
  }
  return <ProcessCell processId={row.process_id} commandLine={row.command_line} executable={row.executable_name} host={host} />;
}

function columns(host: string, sort: Resource): Column<Usage>[] {
  const by = (resource: Resource): Pick<Column<Usage>, "sort" | "sorted"> => ({ sort: () => sortBy(resource), sorted: sort === resource });
  const speed = (row: Usage, value: number | null | undefined): string => bytesPerSecond(perSecond(value, row.covered_ms));
  return [
    { id: "process", title: t("column.process"), wide: true, cell: (row) => subject(row, host) },
    { id: "pid", title: t("column.pid"), number: true, cell: (row) => row.pid ?? UNKNOWN },
    { id: "user", title: t("column.user"), cell: (row) => <Inert text={row.owner} /> },
    { id: "home", title: t("column.home"), cell: (row) => <Home row={row} /> },
    { id: "ports", title: t("column.ports"), cell: (row) => row.service_ports?.join(" ") || UNKNOWN },
    { id: "cpu", title: t("column.cpu"), hint: t("unit.cores"), number: true, cell: (row) => short(row.cpu_cores), ...by("cpu") },
    { id: "peak", title: t("column.peak"), hint: t("column.peakHint"), number: true, cell: (row) => short(row.cpu_cores_max) },
    { id: "memory", title: t("column.memory"), number: true, cell: (row) => bytes(row.memory_usage_bytes_max), ...by("memory") },
    { id: "read", title: t("column.read"), number: true, cell: (row) => speed(row, row.disk_read_bytes), ...by("disk") },
    { id: "write", title: t("column.write"), number: true, cell: (row) => speed(row, row.disk_write_bytes) },
    { id: "receive", title: t("column.receive"), number: true, cell: (row) => speed(row, row.network_receive_bytes), ...by("network") },
    { id: "transmit", title: t("column.transmit"), number: true, cell: (row) => speed(row, row.network_transmit_bytes) },
  ];
}

export function Processes({ host }: { host: string }): VNode {
  const sort = sortOf();
  const asked = useAsked<Schemas["HostTopAnswer"]>(path(hostPath(host, "/processes"), { ...tableWindow(), sort, limit: ROWS }));
  return (
    <Shown of={asked}>
      {({ processes, remaining, residual }) => {
        const rows = [...processes, ...(remaining ? [remaining] : []), ...(residual ? [residual] : [])];
        if (rows.length === 0) return <Empty>{t("processes.empty")}</Empty>;
        const id = (row: Usage): string => `${row.place ?? "rest"} ${row.instance_id ?? ""}`;
        return <Table label={t("tab.processes")} columns={columns(host, sort)} rows={rows} id={id} mark={(row) => (row.place ? "" : "rest")} />;
      }}
    </Shown>
  );
}
