// One rule as a form, with its dry run: what it would have told of the past day, by the same steps.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, Refusal, type Schemas } from "../../api/client";
import { Failed } from "../../components/states";
import { Inert } from "../../inert";
import { t } from "../../texts";
import { date } from "../../time";
import { short, whole } from "../../units";
import { asRefusal } from "../hosts/dialog";

export type Draft = Schemas["RuleBody"];
type Metric = Schemas["Metric"];
type Level = Schemas["Severity"];
type Answer = Schemas["RuleTest"];

/** A compiler that knows the API's metrics: one that is missing here, or not there, does not compile. */
const METRICS = Object.keys({
  "host.cpu_ratio": 0, "host.iowait_ratio": 0, "host.load_per_core": 0, "host.memory_used_ratio": 0, "host.swap_used_ratio": 0,
  "host.network_bytes_per_second": 0, "host.processes": 0, "agent.spool_reports": 0, "agent.failing_collectors": 0, "agent.lost_reports": 0,
  "filesystem.used_ratio": 0, "filesystem.full_in_hours": 0, "filesystem.inodes_used_ratio": 0, "block_device.utilization_ratio": 0,
  "block_device.queue_length": 0, "block_device.bytes_per_second": 0, "network_interface.receive_bytes_per_second": 0,
  "network_interface.transmit_bytes_per_second": 0, "network_interface.faults_per_second": 0, "process.cpu_cores": 0, "process.memory_bytes": 0,
  "process.disk_bytes_per_second": 0, "process.network_bytes_per_second": 0, "process.threads": 0, "process.file_descriptors": 0,
  "process.count": 0, "process.is_new": 0, "process.connections": 0, "process.retransmits_per_second": 0, "process.exits": 0,
  "process.exits_in_an_hour": 0, "process.failed_exits": 0, "process.killed_exits": 0,
} satisfies Record<Metric, 0>) as Metric[];
const LEVELS: Level[] = ["info", "warning", "critical"];
const HOURS = 24;

function draftOf(rule: Schemas["Rule"] | null): Draft {
  if (rule === null) return { name: "", severity: "warning", enabled: true, selector: "", metric: "process.cpu_cores", object: null, below: false, threshold: 1, recover_threshold: null, for_s: 300, recover_for_s: 60 };
  const { rule_id: _id, built_in: _built, created_at: _made, ...kept } = rule;
  return { ...kept, metric: kept.metric as Metric, severity: kept.severity as Level };
}

function Told({ answer }: { answer: Answer }): VNode {
  return (
    <div role="status">
      <p>{t("rules.would", { alerts: whole(answer.alerts), hosts: whole(answer.judged_hosts), all: whole(answer.hosts), reports: whole(answer.reports) })}</p>
      <ul tabIndex={0} aria-label={t("rules.test")}>
        {answer.items.slice(0, 50).map((item) => (
          <li key={`${item.host_id} ${item.object} ${item.fired_at}`}>
            <Inert text={item.host_name ?? item.host_id} /> {item.object && <Inert text={item.object} />} {short(item.value)} <span class="hint">{date(item.fired_at)} – {item.ended_at ? date(item.ended_at) : "…"}</span>
          </li>
        ))}
      </ul>
    </div>
  );
}

interface Props {
  rule: Schemas["Rule"] | null;
  error: Refusal | null;
  save: (draft: Draft) => void;
  close: () => void;
}

export function RuleForm({ rule, error, save, close }: Props): VNode {
  const [draft, write] = useState(draftOf(rule));
  const [answer, show] = useState<Answer | null>(null);
  const [failed, fail] = useState<Refusal | null>(null);
  const [busy, work] = useState(false);
  const change = (part: Partial<Draft>): void => {
    write({ ...draft, ...part });
    show(null);
  };
  const number = (text: string): number => (text === "" ? Number.NaN : Number(text));
  const submit = (event: Event): void => {
    event.preventDefault();
    save(draft);
  };
  const test = (): void => {
    work(true);
    ask<Answer>("/v1/rules/test", { method: "POST", body: { rule: { ...draft, name: draft.name || "draft" }, hours: HOURS } }).then(
      (found) => {
        show(found);
        fail(null);
        work(false);
      },
      (cause: unknown) => {
        fail(asRefusal(cause));
        work(false);
      },
    );
  };
  return (
    <section class="panel bulk" aria-label={t("rules.form")}>
      <h2>{t(rule ? "rules.edit" : "rules.new")}</h2>
      <form class="row" onSubmit={submit}>
        <label>{t("column.name")}<input required maxLength={64} value={draft.name} onInput={(event) => change({ name: event.currentTarget.value })} /></label>
        <label>{t("alert.severity")}<select value={draft.severity} onChange={({ currentTarget }) => change({ severity: LEVELS.find((one) => one === currentTarget.value) ?? "warning" })}>{LEVELS.map((one) => <option key={one} value={one}>{t(`severity.${one}`)}</option>)}</select></label>
        <label>{t("rules.metric")}<select value={draft.metric} onChange={({ currentTarget }) => change({ metric: METRICS.find((one) => one === currentTarget.value) ?? draft.metric })}>{METRICS.map((one) => <option key={one} value={one}>{one}</option>)}</select></label>
        <label>{t("rules.side")}<select value={draft.below ? "below" : "above"} onChange={(event) => change({ below: event.currentTarget.value === "below" })}><option value="above">{t("rules.above")}</option><option value="below">{t("rules.below")}</option></select></label>
        <label>{t("rules.threshold")}<input type="number" required step="any" value={draft.threshold} onInput={(event) => change({ threshold: number(event.currentTarget.value) })} /></label>
        <label>{t("rules.recover")}<input type="number" step="any" value={draft.recover_threshold ?? ""} onInput={({ currentTarget }) => change({ recover_threshold: currentTarget.value === "" ? null : Number(currentTarget.value) })} /></label>
        <label>{t("rules.forSeconds")}<input type="number" required min="0" max="86400" value={draft.for_s} onInput={(event) => change({ for_s: number(event.currentTarget.value) })} /></label>
        <label>{t("rules.recoverSeconds")}<input type="number" required min="0" max="86400" value={draft.recover_for_s} onInput={(event) => change({ recover_for_s: number(event.currentTarget.value) })} /></label>
        <label>{t("rules.object")}<input maxLength={256} spellcheck={false} value={draft.object ?? ""} onInput={({ currentTarget }) => change({ object: currentTarget.value === "" ? null : currentTarget.value })} /></label>
        <label>{t("manage.selector")}<input maxLength={1024} spellcheck={false} placeholder={t("manage.selectorHint")} value={draft.selector} onInput={(event) => change({ selector: event.currentTarget.value })} /></label>
        <label class="tick"><input type="checkbox" checked={draft.enabled} onInput={(event) => change({ enabled: event.currentTarget.checked })} />{t("rules.enabled")}</label>
        <button type="button" disabled={busy} onClick={test}>{t("rules.test")}</button>
        <button type="submit" class="primary">{t("act.save")}</button>
        <button type="button" onClick={close}>{t("act.cancel")}</button>
      </form>
      {(failed ?? error) && <Failed error={(failed ?? error) as Refusal} />}
      {answer && <Told answer={answer} />}
    </section>
  );
}
