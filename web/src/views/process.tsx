// One command line across hosts and restarts: where it ran, and what it used on one of them.
import type { VNode } from "preact";
import { path, type Schemas } from "../api/client";
import { useAsked } from "../api/use";
import { RangePicker } from "../components/range";
import { Empty, Shown } from "../components/states";
import { Table, type Column } from "../components/table";
import { Inert } from "../inert";
import { address, place, select, when } from "../router";
import { t } from "../texts";
import { date } from "../time";
import { UNKNOWN } from "../units";
import { Usage } from "./process/usage";

type Run = Schemas["Page_Run"]["items"][number];

function columns(host: string | null): Column<Run>[] {
  const same = (row: Run): boolean => row.host_id === host || row.host_name === host;
  return [
    { id: "host", title: t("column.host"), wide: true, cell: (row) => <button type="button" class="link" aria-pressed={same(row)} onClick={() => select({ host: row.host_id })}><Inert text={row.host_name ?? row.host_id} /></button> },
    { id: "pid", title: t("column.pid"), number: true, cell: (row) => row.pid },
    { id: "user", title: t("column.user"), cell: (row) => <Inert text={row.owner} /> },
    { id: "home", title: t("column.home"), cell: (row) => <Inert text={row.container_id?.slice(0, 12) ?? row.systemd_unit} /> },
    { id: "path", title: t("column.file"), cell: (row) => <Inert class="command" text={row.executable_path} /> },
    { id: "parent", title: t("column.parent"), number: true, cell: (row) => row.parent_pid ?? UNKNOWN },
    { id: "started", title: t("column.started"), number: true, cell: (row) => date(row.creation_time) },
    { id: "described", title: t("column.described"), number: true, cell: (row) => date(row.described_at) },
    { id: "open", title: "", cell: (row) => <a data-here href={address("host", row.host_id, when())}>{t("process.openHost")}</a> },
  ];
}

export function ProcessView(): VNode {
  const id = place.value.subject;
  const asked = useAsked<Schemas["RunsAnswer"]>(path(`/v1/processes/${encodeURIComponent(id)}/runs`, { limit: 200 }));
  const runs = asked.data?.items ?? [];
  const host = place.value.query.get("host") ?? runs[0]?.host_id ?? null;
  return (
    <div class="view">
      <div class="bar"><h1>{t("process.title")}</h1><code class="id">{id}</code><RangePicker /></div>
      <Shown of={asked}>
        {(data) => (
          <>
            <pre class="panel command-line"><Inert text={data.command_line} class="whole" /></pre>
            {host && <Usage host={host} process={id} />}
            <section class="panel tables" aria-label={t("process.runs")}>
              <h2>{t("process.runs")}</h2>
              {runs.length === 0 ? <Empty>{t("process.noRuns")}</Empty> : <Table label={t("process.runs")} columns={columns(host)} rows={runs} id={(row) => `${row.host_id} ${row.instance_id}`} />}
            </section>
          </>
        )}
      </Shown>
    </div>
  );
}
