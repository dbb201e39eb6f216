// The hosts as their administrators see them: state, labels, and what can be done. The server filters
// by the selector that bulk changes use as well, the page by life cycle; both stand in the address.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { Liveness } from "../../components/liveness";
import { Empty, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { address, place, select, when } from "../../router";
import { may } from "../../session";
import { t, type Key } from "../../texts";
import { whole } from "../../units";
import { Acting, Actions, type Act } from "./act";

type Host = Schemas["HostSummary"];
/** Rows drawn: more than anybody acts upon one by one. */
const MOST = 200;
/** Hosts asked for: the most that the server gives at once. */
const PAGE = 1000;
const STATES: [string, Key][] = [["", "manage.any"], ["pending", "manage.pending"], ["active", "manage.active"], ["quarantined", "manage.quarantined"], ["decommissioned", "manage.decommissioned"]];

function columns(begin: (host: Host, act: Act) => void): Column<Host>[] {
  const shown: Column<Host>[] = [
    { id: "name", title: t("column.host"), cell: (row) => <a data-here href={address("host", row.host_id, when())}><Inert text={row.host_name} /></a> },
    { id: "state", title: t("column.state"), cell: (row) => <Liveness host={row} /> },
    { id: "labels", title: t("column.labels"), wide: true, cell: (row) => (
      <>
        {row.ephemeral && <span class="tag">{t("manage.ephemeral")}</span>}
        {Object.entries(row.labels as Record<string, string>).map(([name, value]) => <span key={name} class="label"><Inert text={`${name}=${value}`} /></span>)}
      </>
    ) },
    { id: "version", title: t("manage.version"), cell: (row) => <Inert text={row.agent_version} /> },
  ];
  if (may("hosts:write")) shown.push({ id: "actions", title: t("manage.actions"), cell: (row) => <Actions host={row} begin={(act) => begin(row, act)} /> });
  return shown;
}

function Filter(): VNode {
  const { query } = place.value;
  const [selector, write] = useState(query.get("labels") ?? "");
  const submit = (event: Event): void => {
    event.preventDefault();
    select({ labels: selector.trim() });
  };
  return (
    <form class="row" role="search" onSubmit={submit}>
      <label>{t("manage.selector")}<input class="filter" spellcheck={false} placeholder={t("manage.selectorHint")} value={selector} onInput={(event) => write(event.currentTarget.value)} /></label>
      <label>{t("manage.state")}
        <select value={query.get("lifecycle") ?? ""} onChange={(event) => select({ lifecycle: event.currentTarget.value })}>
          {STATES.map(([state, text]) => <option key={state} value={state}>{t(text)}</option>)}
        </select>
      </label>
      <button type="submit">{t("manage.apply")}</button>
    </form>
  );
}

export function HostList({ changes }: { changes: number }): VNode {
  const { query } = place.value;
  const asked = useAsked<Schemas["Page_HostSummary"]>(path("/v1/hosts", { labels: query.get("labels"), limit: PAGE }));
  const [acting, act] = useState<{ host: Host; act: Act } | null>(null);
  const [seen, see] = useState(changes);
  if (seen !== changes) {
    see(changes);
    asked.again();
  }
  const state = query.get("lifecycle");
  const close = (): void => {
    act(null);
    asked.again();
  };
  return (
    <section class="panel tables" aria-label={t("manage.title")}>
      <h2>{t("manage.title")}</h2>
      <Filter />
      {acting && <Acting host={acting.host} act={acting.act} close={close} />}
      <Shown of={asked}>
        {({ items, next }) => {
          const hosts = (items as Host[]).filter((host) => state === null || host.lifecycle === state);
          if (hosts.length === 0) return <Empty>{t("manage.none")}</Empty>;
          return (
            <>
              <Table label={t("manage.title")} columns={columns((host, doing) => act({ host, act: doing }))} rows={hosts.slice(0, MOST)} id={(row) => row.host_id} />
              {(next || hosts.length > MOST) && <p class="notice">{t("manage.more", { count: whole(Math.min(MOST, hosts.length)) })}</p>}
            </>
          );
        }}
      </Shown>
    </section>
  );
}
