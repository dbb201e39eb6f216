// Alerts, newest first. Each leads to its evidence: the host, in the window in which it happened.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { Empty, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert, plain } from "../../inert";
import { address } from "../../router";
import { may } from "../../session";
import { t, type Key } from "../../texts";
import { date, iso } from "../../time";
import { short, span } from "../../units";
import { Dialog } from "../hosts/dialog";
import { NewSilence } from "./silences";

type Alert = Schemas["Page_AlertFound"]["items"][number];
/** Rows asked for; what is older is in REST. */
const MOST = 200;
/** What is shown around what happened. */
const MARGIN_MS = 10 * 60_000;

const STATES: Record<string, Key> = { firing: "alert.firing", acknowledged: "alert.acknowledged", resolved: "alert.resolved" };
const SEVERITIES: Record<string, Key> = { info: "severity.info", warning: "severity.warning", critical: "severity.critical" };
const RULES: Record<string, Key> = {
  host_silent: "rule.host_silent", host_never_reported: "rule.host_never_reported", host_clock_ahead: "rule.host_clock_ahead",
  host_clock_behind: "rule.host_clock_behind", host_clone_detected: "rule.host_clone_detected", notification_dead: "rule.notification_dead", endpoint_down: "rule.endpoint_down", host_enrolls_too_often: "rule.host_enrolls_too_often",
  mass_silence: "rule.mass_silence", no_reports: "rule.no_reports", observation_gap: "rule.observation_gap",
};

export function Severity({ of }: { of: string }): VNode {
  const text = SEVERITIES[of];
  return <span class={of === "critical" ? "tag gone" : of === "warning" ? "tag warn" : "tag"}>{text ? t(text) : of}</span>;
}

function Found({ alert }: { alert: Alert }): VNode {
  const detail = alert.detail as { metric?: string; value?: number; threshold?: number; below?: boolean; object?: string };
  const known = RULES[alert.rule];
  return (
    <>
      {known ? t(known) : <Inert text={alert.rule} />}
      {detail.metric !== undefined && <small class="hint"> {detail.metric} {short(detail.value)} {detail.below ? "<" : ">"} {short(detail.threshold)}</small>}
      {detail.object && <> <Inert text={detail.object} /></>}
    </>
  );
}

function Evidence({ alert }: { alert: Alert }): VNode {
  if (!alert.host_id) return <span class="hint">{t("alert.fleet")}</span>;
  const from = iso(Date.parse(alert.began_at) - MARGIN_MS);
  const to = alert.resolved_at ? iso(Date.parse(alert.resolved_at) + MARGIN_MS) : null;
  return <a data-here href={address("host", alert.host_id, { from, to })}><Inert text={alert.host_name ?? alert.host_id} /></a>;
}

function State({ alert }: { alert: Alert }): VNode {
  const text = STATES[alert.state];
  const quiet = alert.muted ? t("alert.muted") : alert.silenced_until ? t("alert.silenced", { until: date(alert.silenced_until) }) : null;
  return (
    <>
      <span class={alert.state === "firing" ? "tag gone" : alert.state === "resolved" ? "tag new" : "tag"}>{text ? t(text) : alert.state}</span>
      {alert.acknowledged_by && <small class="hint"> <Inert text={alert.acknowledged_by} /> {t("alert.until", { until: date(alert.acknowledged_until) })}</small>}
      {quiet && <small class="hint"> {quiet}</small>}
    </>
  );
}

type Doing = { alert: Alert; what: "acknowledge" | "silence" };

function columns(open: boolean, begin: (doing: Doing) => void): Column<Alert>[] {
  const shown: Column<Alert>[] = [
    { id: "severity", title: t("alert.severity"), cell: (row) => <Severity of={row.severity} /> },
    { id: "what", title: t("alert.what"), wide: true, cell: (row) => <Found alert={row} /> },
    { id: "host", title: t("column.host"), cell: (row) => <Evidence alert={row} /> },
    { id: "state", title: t("column.state"), cell: (row) => <State alert={row} /> },
    { id: "began", title: t("alert.began"), number: true, cell: (row) => date(row.began_at) },
    { id: "lasted", title: t("alert.lasted"), number: true, cell: (row) => span((row.resolved_at ? Date.parse(row.resolved_at) : Date.now()) - Date.parse(row.began_at)) },
  ];
  if (open && may("alerts:write")) {
    shown.push({ id: "actions", title: t("manage.actions"), cell: (row) => (
      <span class="actions">
        <button type="button" onClick={() => begin({ alert: row, what: "acknowledge" })}>{t("alert.acknowledge")}</button>
        <button type="button" onClick={() => begin({ alert: row, what: "silence" })}>{t("alert.silence")}</button>
      </span>
    ) });
  }
  return shown;
}

const LENGTHS: [number, Key][] = [[3600, "alert.hour"], [8 * 3600, "alert.shift"], [86_400, "alert.day"], [604_800, "alert.week"]];

function Acknowledge({ alert, close }: { alert: Alert; close: () => void }): VNode {
  const [seconds, choose] = useState(LENGTHS[1]?.[0] ?? 3600);
  const done = (): Promise<unknown> => ask(path(`/v1/alerts/${alert.alert_id}/acknowledgement`, { for_s: seconds }), { method: "PUT" });
  return (
    <Dialog title={t("alert.acknowledgeOf", { host: plain(alert.host_name ?? alert.rule) })} submit={t("alert.acknowledge")} done={done} close={close}>
      <p>{t("alert.acknowledgeHint")}</p>
      <label>{t("alert.for")}
        <select value={seconds} onChange={(event) => choose(Number(event.currentTarget.value))}>
          {LENGTHS.map(([length, text]) => <option key={length} value={length}>{t(text)}</option>)}
        </select>
      </label>
    </Dialog>
  );
}

export function AlertList({ open }: { open: boolean }): VNode {
  const asked = useAsked<Schemas["Page_AlertFound"]>(path("/v1/alerts", { open: open ? "true" : null, limit: MOST }));
  const [doing, begin] = useState<Doing | null>(null);
  const close = (): void => {
    begin(null);
    asked.again();
  };
  return (
    <section class="panel tables" aria-label={t(open ? "alerts.open" : "alerts.history")}>
      {doing?.what === "acknowledge" && <Acknowledge alert={doing.alert} close={close} />}
      {doing?.what === "silence" && <NewSilence host={doing.alert.host_id ?? null} rule={doing.alert.rule} close={close} />}
      <Shown of={asked}>
        {({ items, next }) => items.length === 0 ? <Empty>{t(open ? "alerts.none" : "alerts.never")}</Empty> : (
          <>
            <Table label={t(open ? "alerts.open" : "alerts.history")} columns={columns(open, begin)} rows={items} id={(row) => row.alert_id} />
            {next && <p class="notice">{t("alerts.more", { count: MOST })}</p>}
          </>
        )}
      </Shown>
    </section>
  );
}
