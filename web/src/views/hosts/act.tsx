// What an administrator does to one host. Each change is asked for first, and says what it means.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, hostPath, read, Refusal, type Schemas } from "../../api/client";
import { useAsked, useLoaded } from "../../api/use";
import { Shown } from "../../components/states";
import { plain } from "../../inert";
import { may } from "../../session";
import { t, type Key } from "../../texts";
import { whole } from "../../units";
import { Dialog } from "./dialog";
import { labelsIn } from "./labels";

type Host = Schemas["HostSummary"];
export type Act = "approve" | "release" | "quarantine" | "decommission" | "labels" | "purge";

type LifecycleAct = Exclude<Act, "labels" | "purge">;

interface Change {
  text: Key;
  title: Key;
  hint: Key;
  to: Schemas["Lifecycle"];
}
const CHANGES: Record<LifecycleAct, Change> = {
  approve: { text: "act.approve", title: "act.approveOf", hint: "act.activeHint", to: "active" },
  release: { text: "act.release", title: "act.releaseOf", hint: "act.activeHint", to: "active" },
  quarantine: { text: "act.quarantine", title: "act.quarantineOf", hint: "act.quarantineHint", to: "quarantined" },
  decommission: { text: "act.decommission", title: "act.decommissionOf", hint: "act.decommissionHint", to: "decommissioned" },
};

/** What can be done to a host in its state; a tombstone stays one. */
function actsOn(host: Host): LifecycleAct[] {
  switch (host.lifecycle) {
    case "pending": return ["approve", "decommission"];
    case "active": return ["quarantine", "decommission"];
    case "quarantined": return ["release", "decommission"];
    default: return [];
  }
}

export function Actions({ host, begin }: { host: Host; begin: (act: Act) => void }): VNode {
  const name = plain(host.host_name);
  return (
    <span class="actions">
      {actsOn(host).map((act) => <button key={act} type="button" class={act === "decommission" ? "danger" : ""} aria-label={`${t(CHANGES[act].text)}: ${name}`} onClick={() => begin(act)}>{t(CHANGES[act].text)}</button>)}
      {host.lifecycle !== "decommissioned" && <button type="button" aria-label={`${t("act.labels")}: ${name}`} onClick={() => begin("labels")}>{t("act.labels")}</button>}
      {host.lifecycle === "decommissioned" && may("data:delete") && <button type="button" class="danger" aria-label={`${t("act.purge")}: ${name}`} onClick={() => begin("purge")}>{t("act.purge")}</button>}
    </span>
  );
}

interface Props {
  host: Host;
  /** It is over; what the list shows may have changed. */
  close: () => void;
}

function Lifecycle({ host, act, close }: Props & { act: LifecycleAct }): VNode {
  const [reason, say] = useState("");
  const { title, text, hint, to } = CHANGES[act];
  const done = (): Promise<unknown> => ask(hostPath(host.host_id, "/lifecycle"), { method: "PUT", body: { lifecycle: to, reason: reason.trim() || null } });
  return (
    <Dialog title={t(title, { host: plain(host.host_name) })} submit={t(text)} danger={act === "decommission"} done={done} close={close}>
      <p>{t(hint)}</p>
      <label>{t("act.reason")}<input maxLength={160} value={reason} onInput={(event) => say(event.currentTarget.value)} /></label>
    </Dialog>
  );
}

interface Read {
  text: string;
  etag: string | null;
}

function Editor({ host, of, close }: Props & { of: Read }): VNode {
  const [text, write] = useState(of.text);
  const done = (): Promise<unknown> => {
    const { labels, wrong } = labelsIn(text.split("\n"));
    if (wrong !== null) return Promise.reject(new Refusal(0, "invalid", t("act.labelsWrong", { line: wrong })));
    return ask(hostPath(host.host_id, "/labels"), { method: "PUT", body: { labels }, ifMatch: of.etag });
  };
  return (
    <Dialog title={t("act.labelsOf", { host: plain(host.host_name) })} submit={t("act.save")} done={done} close={close}>
      <label>{t("act.labelsHint")}<textarea rows={8} spellcheck={false} value={text} onInput={(event) => write(event.currentTarget.value)} /></label>
    </Dialog>
  );
}

/** Asks the server for the labels first: whoever changed them meanwhile is not overwritten. */
function Labels({ host, close }: Props): VNode {
  const asked = useLoaded<Read>(host.host_id, async (signal) => {
    const { data, etag } = await read<Schemas["HostLabels"]>(hostPath(host.host_id, "/labels"), { signal });
    const labels = data.labels as Record<string, string>;
    return { text: Object.entries(labels).map(([name, value]) => `${name}=${value}`).join("\n"), etag };
  }, true);
  return <Shown of={asked}>{(of) => <Editor host={host} of={of} close={close} />}</Shown>;
}

/** How far the deletion is, if it was asked for. */
function Progress({ host }: { host: Host }): VNode | null {
  const asked = useAsked<Schemas["HostPurge"]>(hostPath(host.host_id, "/purge"));
  if (asked.data === null) return null;
  const { state, steps_done: done, steps_total: all, rows_removed: rows } = asked.data;
  return <p role="status">{t("purge.progress", { state, done: whole(done), all: whole(all), rows: whole(rows) })}</p>;
}

function Purge({ host, close }: Props): VNode {
  const done = (): Promise<unknown> => ask(hostPath(host.host_id, "/purge"), { method: "POST" });
  return (
    <Dialog title={t("act.purgeOf", { host: plain(host.host_name) })} submit={t("act.purge")} danger done={done} close={close}>
      <p>{t("act.purgeHint")}</p>
      <Progress host={host} />
    </Dialog>
  );
}

export function Acting({ host, act, close }: Props & { act: Act }): VNode {
  if (act === "labels") return <Labels host={host} close={close} />;
  if (act === "purge") return <Purge host={host} close={close} />;
  return <Lifecycle host={host} act={act} close={close} />;
}
