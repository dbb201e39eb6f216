// Rules over samples. A rule is written in a form, and can be asked first what it would have told of
// the past day.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, path, Refusal, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { Empty, Failed, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { may } from "../../session";
import { t } from "../../texts";
import { short, span } from "../../units";
import { asRefusal, Dialog } from "../hosts/dialog";
import { Severity } from "./list";
import { Draft, RuleForm } from "./ruleform";

type Rule = Schemas["Rule"];

function columns(begin: (doing: Doing) => void): Column<Rule>[] {
  const shown: Column<Rule>[] = [
    { id: "name", title: t("column.name"), cell: (row) => <Inert text={row.name} /> },
    { id: "severity", title: t("alert.severity"), cell: (row) => <Severity of={row.severity} /> },
    { id: "condition", title: t("rules.condition"), wide: true, cell: (row) => (
      <>
        <code>{row.metric} {row.below ? "<" : ">"} {short(row.threshold)}</code> {row.object && <Inert text={row.object} />}
        {row.selector !== "" && <span class="label"><Inert text={row.selector} /></span>}
      </>
    ) },
    { id: "for", title: t("rules.for"), number: true, cell: (row) => row.for_s === 0 ? "–" : span(row.for_s * 1000) },
    { id: "state", title: t("column.state"), cell: (row) => <><span class={row.enabled ? "tag new" : "tag"}>{t(row.enabled ? "rules.enabled" : "rules.disabled")}</span> {row.built_in && <span class="tag">{t("rules.builtIn")}</span>}</> },
  ];
  if (may("alerts:write")) {
    shown.push({ id: "actions", title: t("manage.actions"), cell: (row) => (
      <span class="actions">
        <button type="button" onClick={() => begin({ rule: row, what: "edit" })}>{t("rules.edit")}</button>
        {!row.built_in && <button type="button" class="danger" onClick={() => begin({ rule: row, what: "delete" })}>{t("rules.delete")}</button>}
      </span>
    ) });
  }
  return shown;
}

interface Doing {
  rule: Rule | null;
  what: "edit" | "delete";
}

function Remove({ rule, close }: { rule: Rule; close: () => void }): VNode {
  const done = (): Promise<unknown> => ask(`/v1/rules/${rule.rule_id}`, { method: "DELETE" });
  return <Dialog title={t("rules.deleteOf", { name: rule.name })} submit={t("rules.delete")} danger done={done} close={close}><p>{t("rules.deleteHint")}</p></Dialog>;
}

export function Rules(): VNode {
  const asked = useAsked<Schemas["Page_Rule"]>(path("/v1/rules"));
  const [doing, begin] = useState<Doing | null>(null);
  const [error, fail] = useState<Refusal | null>(null);
  const close = (): void => {
    begin(null);
    asked.again();
  };
  const save = (draft: Draft): void => {
    const rule = doing?.rule;
    const kept = rule ? ask(`/v1/rules/${rule.rule_id}`, { method: "PUT", body: draft }) : ask("/v1/rules", { method: "POST", body: draft });
    kept.then(() => {
      fail(null);
      close();
    }, (cause: unknown) => fail(asRefusal(cause)));
  };
  return (
    <>
      {doing?.what === "edit" && <RuleForm key={doing.rule?.rule_id ?? "new"} rule={doing.rule} error={error} save={save} close={close} />}
      <section class="panel tables" aria-label={t("alerts.rules")}>
        {may("alerts:write") && <div class="row first"><button type="button" class="primary" onClick={() => begin({ rule: null, what: "edit" })}>{t("rules.new")}</button></div>}
        {doing?.what === "delete" && doing.rule && <Remove rule={doing.rule} close={close} />}
        {error && doing?.what !== "edit" && <Failed error={error} />}
        <Shown of={asked}>
          {({ items }) => items.length === 0 ? <Empty>{t("rules.none")}</Empty> : <Table label={t("alerts.rules")} columns={columns(begin)} rows={items} id={(row) => row.rule_id} />}
        </Shown>
      </section>
    </>
  );
}
