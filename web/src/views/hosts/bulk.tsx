// One change for every host that a selector means. What would change is shown first; only what was
// shown can be done: whoever edits the question sees it again.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, Refusal, type Schemas } from "../../api/client";
import { Failed } from "../../components/states";
import { Inert } from "../../inert";
import { t, type Key } from "../../texts";
import { whole } from "../../units";
import { asRefusal } from "./dialog";
import { labelsIn } from "./labels";

type Answer = Schemas["BulkAnswer"];
type What = "active" | "quarantined" | "decommissioned" | "set" | "remove";
const WHATS: [What, Key][] = [["set", "bulk.set"], ["remove", "bulk.remove"], ["active", "act.approve"], ["quarantined", "act.quarantine"], ["decommissioned", "act.decommission"]];

function bodyOf(selector: string, what: What, labels: string, reason: string): object {
  const body = { selector: selector.trim(), reason: reason.trim() || null };
  const parts = labels.split(",").map((part) => part.trim()).filter(Boolean);
  if (what === "remove") return { ...body, remove_labels: parts };
  if (what !== "set") return { ...body, lifecycle: what };
  const typed = labelsIn(parts);
  if (typed.wrong !== null) throw new Refusal(0, "invalid", t("act.labelsWrong", { line: typed.wrong }));
  return { ...body, set_labels: typed.labels };
}

function Preview({ answer }: { answer: Answer }): VNode {
  const { matched, changed, items } = answer;
  return (
    <div role="status">
      <p>{t(answer.dry_run ? "bulk.would" : "bulk.done", { matched: whole(matched), changed: whole(changed) })}</p>
      <ul tabIndex={0} aria-label={t("manage.title")}>
        {items.map((item) => (
          <li key={item.host_id}>
            <Inert text={item.host_name} /> {item.refused ? <span class="error"><Inert text={item.refused} /></span> : !item.changed && <span class="hint">{t("bulk.same")}</span>}
          </li>
        ))}
      </ul>
    </div>
  );
}

export function Bulk({ made }: { made: () => void }): VNode {
  const [selector, choose] = useState("");
  const [what, change] = useState<What>("set");
  const [labels, label] = useState("");
  const [reason, say] = useState("");
  const [answer, show] = useState<Answer | null>(null);
  const [busy, work] = useState(false);
  const [error, fail] = useState<Refusal | null>(null);
  const edited = (edit: () => void) => {
    edit();
    show(null);
  };
  const send = async (dryRun: boolean): Promise<void> => {
    work(true);
    try {
      show(await ask<Answer>("/v1/hosts/bulk", { method: "POST", body: { ...bodyOf(selector, what, labels, reason), dry_run: dryRun } }));
      fail(null);
    } catch (cause) {
      fail(asRefusal(cause));
      show(null);
    }
    work(false);
    if (!dryRun) made();
  };
  const submit = (event: Event): void => {
    event.preventDefault();
    void send(true);
  };
  const isLabels = what === "set" || what === "remove";
  return (
    <section class="panel bulk" aria-label={t("bulk.title")}>
      <h2>{t("bulk.title")}</h2>
      <p class="hint">{t("bulk.hint")}</p>
      <form class="row" onSubmit={submit}>
        <label>{t("manage.selector")}<input class="filter" required spellcheck={false} placeholder={t("manage.selectorHint")} value={selector} onInput={({ currentTarget }) => edited(() => choose(currentTarget.value))} /></label>
        <label>{t("bulk.what")}
          <select value={what} onChange={({ currentTarget }) => edited(() => change(WHATS.find(([one]) => one === currentTarget.value)?.[0] ?? "set"))}>
            {WHATS.map(([one, text]) => <option key={one} value={one}>{t(text)}</option>)}
          </select>
        </label>
        {isLabels && <label>{t("bulk.labels")}<input required spellcheck={false} placeholder={what === "set" ? t("bulk.labelsHint") : "env, role"} value={labels} onInput={({ currentTarget }) => edited(() => label(currentTarget.value))} /></label>}
        <label>{t("act.reason")}<input maxLength={160} value={reason} onInput={({ currentTarget }) => edited(() => say(currentTarget.value))} /></label>
        <button type="submit" disabled={busy}>{t("bulk.preview")}</button>
        {answer?.dry_run && answer.changed > 0 && <button type="button" class={what === "decommissioned" ? "danger" : "primary"} disabled={busy} onClick={() => void send(false)}>{t("bulk.do", { count: whole(answer.changed) })}</button>}
      </form>
      {error && <Failed error={error} />}
      {answer && <Preview answer={answer} />}
    </section>
  );
}
