// Silences and maintenance windows: what is not told, why, and until when. Each one ends.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, path, Refusal, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { Empty, Failed, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { may } from "../../session";
import { t } from "../../texts";
import { date, iso } from "../../time";
import { whole } from "../../units";
import { asRefusal, Dialog } from "../hosts/dialog";

type Silence = Schemas["Silence"];
const HOUR_MS = 3_600_000;

/** Asks how long and why. `host` and `rule`: what it is about; null: chosen by a selector. */
export function NewSilence({ host, rule, close }: { host: string | null; rule: string | null; close: () => void }): VNode {
  const [selector, choose] = useState("");
  const [hours, last] = useState("2");
  const [comment, say] = useState("");
  const done = (): Promise<unknown> => {
    const ends = Date.now() + Number(hours) * HOUR_MS;
    return ask("/v1/silences", { method: "POST", body: { selector: selector.trim(), host_id: host, rule, comment: comment.trim(), ends_at: iso(ends) } });
  };
  return (
    <Dialog title={t("silence.new")} submit={t("alert.silence")} done={done} close={close}>
      <p>{t(host === null && rule === null ? "silence.hint" : "silence.hintOf")}</p>
      {host === null && <label>{t("manage.selector")}<input spellcheck={false} placeholder={t("manage.selectorHint")} value={selector} onInput={(event) => choose(event.currentTarget.value)} /></label>}
      <label>{t("silence.hours")}<input type="number" required min="0.1" max="2160" step="any" value={hours} onInput={(event) => last(event.currentTarget.value)} /></label>
      <label>{t("silence.comment")}<input required maxLength={160} value={comment} onInput={(event) => say(event.currentTarget.value)} /></label>
    </Dialog>
  );
}

function Of({ silence }: { silence: Silence }): VNode {
  const { rule, host_id: host, selector } = silence;
  if (!rule && !host && selector === "") return <>{t("silence.all")}</>;
  return <>{rule && <span class="tag"><Inert text={rule} /></span>} {host && <Inert text={host} />} {selector !== "" && <span class="label"><Inert text={selector} /></span>}</>;
}

function columns(end: (silence: Silence) => void): Column<Silence>[] {
  const shown: Column<Silence>[] = [
    { id: "of", title: t("silence.of"), cell: (row) => <Of silence={row} /> },
    { id: "comment", title: t("silence.comment"), wide: true, cell: (row) => <Inert text={row.comment} /> },
    { id: "by", title: t("silence.by"), cell: (row) => <Inert text={row.created_by} /> },
    { id: "starts", title: t("silence.starts"), number: true, cell: (row) => date(row.starts_at) },
    { id: "ends", title: t("silence.ends"), number: true, cell: (row) => date(row.ends_at) },
    { id: "waiting", title: t("silence.waiting"), number: true, cell: (row) => whole(row.waiting) },
  ];
  if (may("alerts:write")) shown.push({ id: "end", title: "", cell: (row) => Date.parse(row.ends_at) > Date.now() && <button type="button" onClick={() => end(row)}>{t("silence.end")}</button> });
  return shown;
}

export function Silences(): VNode {
  const asked = useAsked<Schemas["Page_Silence"]>(path("/v1/silences"));
  const [making, make] = useState(false);
  const [error, fail] = useState<Refusal | null>(null);
  const end = (silence: Silence): void => {
    ask<null>(`/v1/silences/${silence.silence_id}`, { method: "DELETE" }).then(asked.again, (cause: unknown) => fail(asRefusal(cause)));
  };
  const close = (): void => {
    make(false);
    asked.again();
  };
  return (
    <section class="panel tables" aria-label={t("alerts.silences")}>
      {may("alerts:write") && <div class="row first"><button type="button" class="primary" onClick={() => make(true)}>{t("silence.new")}</button></div>}
      {making && <NewSilence host={null} rule={null} close={close} />}
      {error && <Failed error={error} />}
      <Shown of={asked}>
        {({ items }) => items.length === 0 ? <Empty>{t("silence.none")}</Empty> : <Table label={t("alerts.silences")} columns={columns(end)} rows={items} id={(row) => row.silence_id} />}
      </Shown>
    </section>
  );
}
