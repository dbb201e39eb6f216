// Runs that listen on a port, or belong to a user, a container or a unit.
import type { VNode } from "preact";
import { path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { ProcessCell } from "../../components/process";
import { Empty, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { address } from "../../router";
import { t } from "../../texts";
import { date } from "../../time";
import { UNKNOWN } from "../../units";

type Found = Schemas["FoundInstance"];

function columns(): Column<Found>[] {
  return [
    { id: "process", title: t("column.process"), wide: true, cell: (row) => <ProcessCell processId={row.process_id} commandLine={row.command_line} executable={row.executable_name} host={row.host_id} /> },
    { id: "host", title: t("column.host"), cell: (row) => <a data-here href={address("host", row.host_id)}><Inert text={row.host_name ?? row.host_id} /></a> },
    { id: "pid", title: t("column.pid"), number: true, cell: (row) => row.pid },
    { id: "user", title: t("column.user"), cell: (row) => <Inert text={row.owner} /> },
    { id: "home", title: t("column.home"), cell: (row) => <Inert text={row.container_id?.slice(0, 12) ?? row.systemd_unit} /> },
    { id: "ports", title: t("column.ports"), cell: (row) => row.service_ports?.join(" ") || UNKNOWN },
    { id: "started", title: t("column.started"), number: true, cell: (row) => date(row.creation_time) },
    { id: "described", title: t("column.described"), number: true, cell: (row) => date(row.described_at) },
  ];
}

export function Instances({ field, words }: { field: string; words: string }): VNode {
  const asked = useAsked<Schemas["InstancesAnswer"]>(path("/v1/instances", { [field]: words, limit: 200 }), true);
  return (
    <Shown of={asked}>
      {({ items, more }) => items.length === 0 ? <Empty>{t("search.none")}</Empty> : (
        <section class="panel tables">
          <Table label={t("menu.search")} columns={columns()} rows={items} id={(row) => `${row.host_id} ${row.instance_id}`} />
          {more && <p class="notice">{t("search.more")}</p>}
        </section>
      )}
    </Shown>
  );
}
