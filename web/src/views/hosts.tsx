// The hosts and what is decided about them; letting more in: a fresh token with the command that uses it,
// and the tokens there are.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, path, Refusal, type Schemas } from "../api/client";
import { useAsked } from "../api/use";
import { Empty, Failed, Shown } from "../components/states";
import { Table, type Column } from "../components/table";
import { Inert } from "../inert";
import { may } from "../session";
import { t, type Key } from "../texts";
import { date } from "../time";
import { whole } from "../units";
import { Bulk } from "./hosts/bulk";
import { Enrol } from "./hosts/enrol";
import { HostList } from "./hosts/list";
import { Profiles } from "./hosts/profiles";

type Token = Schemas["Page_EnrollmentToken"]["items"][number];

function stateOf(token: Token): { text: Key; open: boolean } {
  if (token.revoked_at) return { text: "token.revoked", open: false };
  if (Date.parse(token.expires_at) <= Date.now()) return { text: "token.expired", open: false };
  if (token.max_uses !== null && token.max_uses !== undefined && token.uses >= token.max_uses) return { text: "token.used", open: false };
  return { text: "token.open", open: true };
}

function columns(revoke: (token: Token) => void): Column<Token>[] {
  return [
    { id: "name", title: t("column.name"), wide: true, cell: (row) => <Inert text={row.name} /> },
    { id: "state", title: t("column.state"), cell: (row) => <span class={stateOf(row).open ? "tag new" : "tag"}>{t(stateOf(row).text)}</span> },
    { id: "uses", title: t("column.uses"), number: true, cell: (row) => `${whole(row.uses)} / ${row.max_uses === null || row.max_uses === undefined ? "∞" : whole(row.max_uses)}` },
    { id: "created", title: t("column.created"), number: true, cell: (row) => date(row.created_at) },
    { id: "expires", title: t("column.expires"), number: true, cell: (row) => date(row.expires_at) },
    { id: "revoke", title: "", cell: (row) => stateOf(row).open && <button type="button" class="danger" onClick={() => revoke(row)}>{t("token.revoke")}</button> },
  ];
}

function Tokens({ fresh }: { fresh: number }): VNode {
  const asked = useAsked<Schemas["Page_EnrollmentToken"]>(path("/v1/enrollment-tokens", { limit: 100 }));
  const [error, fail] = useState<Refusal | null>(null);
  const [seen, see] = useState(fresh);
  if (seen !== fresh) {
    see(fresh);
    asked.again();
  }
  const revoke = (token: Token): void => {
    ask<null>(`/v1/enrollment-tokens/${token.token_id}`, { method: "DELETE" }).then(asked.again, (cause: unknown) => fail(cause as Refusal));
  };
  return (
    <section class="panel tables" aria-label={t("token.title")}>
      <h2>{t("token.title")}</h2>
      {error && <Failed error={error} />}
      <Shown of={asked}>
        {({ items }) => items.length === 0 ? <Empty>{t("token.empty")}</Empty> : <Table label={t("token.title")} columns={columns(revoke)} rows={items} id={(row) => row.token_id} />}
      </Shown>
    </section>
  );
}

export function HostsView(): VNode {
  const [fresh, made] = useState(0);
  const [changes, changed] = useState(0);
  return (
    <div class="view">
      <div class="bar"><h1>{t("menu.hosts")}</h1></div>
      <HostList changes={changes} />
      {may("hosts:write") && <Bulk made={() => changed(changes + 1)} />}
      <Profiles />
      {may("tokens:write") ? <><Enrol made={() => made(fresh + 1)} /><Tokens fresh={fresh} /></> : <Empty>{t("hosts.admin")}</Empty>}
    </div>
  );
}
