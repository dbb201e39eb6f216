// Who talked to whom.
import type { VNode } from "preact";
import { path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { ProcessCell } from "../../components/process";
import { Empty, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { t } from "../../texts";
import { bytes, UNKNOWN, whole } from "../../units";
import { tableWindow } from "./selection";

type Talk = Schemas["Talk"];

/** An address and a port; 0 stands for several ports. */
function end(address: string, port: number): string {
  const host = address.replace(/\/(32|128)$/, "");
  return `${host.includes(":") ? `[${host}]` : host}:${port === 0 ? "*" : port}`;
}

function columns(host: string): Column<Talk>[] {
  return [
    { id: "process", title: t("column.process"), wide: true, cell: (row) => row.instance_id ? <ProcessCell processId={row.process_id} commandLine={row.command_line} host={host} /> : <span class="unknown">{t("connections.unowned")}</span> },
    { id: "pid", title: t("column.pid"), number: true, cell: (row) => row.pid ?? UNKNOWN },
    { id: "protocol", title: t("column.protocol"), cell: (row) => <Inert text={[row.protocol, row.direction].filter(Boolean).join(" ")} /> },
    { id: "local", title: t("column.local"), cell: (row) => <Inert class="address" text={end(row.local_address, row.local_port)} /> },
    { id: "remote", title: t("column.remote"), cell: (row) => <Inert class="address" text={end(row.remote_address, row.remote_port)} /> },
    { id: "count", title: t("column.sockets"), number: true, cell: (row) => whole(row.connection_count_max) },
    { id: "receive", title: t("column.received"), number: true, cell: (row) => bytes(row.receive_bytes) },
    { id: "transmit", title: t("column.transmitted"), number: true, cell: (row) => bytes(row.transmit_bytes) },
    { id: "retransmits", title: t("column.retransmits"), number: true, cell: (row) => whole(row.retransmits) },
  ];
}

export function Connections({ host }: { host: string }): VNode {
  const asked = useAsked<Schemas["ConnectionsAnswer"]>(path("/v1/connections", { host, ...tableWindow(), limit: 200 }));
  return (
    <Shown of={asked}>
      {({ items }) => items.length === 0
        ? <Empty>{t("connections.empty")}</Empty>
        : <Table label={t("tab.connections")} columns={columns(host)} rows={items} id={(row) => String(row.place)} />}
    </Shown>
  );
}
