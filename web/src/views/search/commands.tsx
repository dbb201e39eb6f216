// Command lines that contain the words, each with the hosts that ran it.
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
import { whole } from "../../units";

type Page = Schemas["Page_FoundProcess"];
type Found = Page["items"][number];

function columns(): Column<Found>[] {
  return [
    { id: "process", title: t("column.process"), wide: true, cell: (row) => <ProcessCell processId={row.process_id} commandLine={row.command_line} executable={row.hosts[0]?.executable_name} host={row.hosts[0]?.host_id} /> },
    { id: "count", title: t("column.hosts"), number: true, cell: (row) => whole(row.host_count) },
    { id: "hosts", title: t("column.where"), cell: (row) => <span class="list">{row.hosts.slice(0, 3).map((host) => <a key={host.host_id} data-here href={address("host", host.host_id)}><Inert text={host.host_name ?? host.host_id} /></a>)}{row.host_count > 3 && "…"}</span> },
    { id: "first", title: t("column.firstSeen"), number: true, cell: (row) => date(row.first_seen_at) },
    { id: "last", title: t("column.lastSeen"), number: true, cell: (row) => date(row.hosts[0]?.last_seen_at) },
  ];
}

function Md5({ id }: { id: string }): VNode {
  const asked = useAsked<Schemas["RunsAnswer"]>(path(`/v1/processes/${id}/runs`, { limit: 1 }), true);
  if (asked.error?.status === 404) return <Empty>{t("search.none")}</Empty>;
  return (
    <Shown of={asked}>
      {(found) => <p class="panel found"><ProcessCell processId={found.process_id} commandLine={found.command_line} host={found.items[0]?.host_id} /></p>}
    </Shown>
  );
}

export function CommandLines({ field, words }: { field: "command" | "md5"; words: string }): VNode {
  const asked = useAsked<Page>(field === "command" ? path("/v1/processes", { q: words, mode: "words", limit: 100 }) : null, true);
  if (field === "md5") return <Md5 id={words.toLowerCase()} />;
  return (
    <Shown of={asked}>
      {({ items, next }) => items.length === 0 ? <Empty>{t("search.none")}</Empty> : (
        <section class="panel tables">
          <Table label={t("menu.search")} columns={columns()} rows={items} id={(row) => row.process_id} />
          {next && <p class="notice">{t("search.more")}</p>}
        </section>
      )}
    </Shown>
  );
}
