// What a host is: to its operators (its life cycle), and, while it is active, whether it is heard of.
import type { VNode } from "preact";
import type { Schemas } from "../api/client";
import { t, type Key } from "../texts";
import { date } from "../time";
import { span } from "../units";

/** In the order of who needs a look first. */
export const LIVES = ["silent", "pending", "quarantined", "never_reported", "late", "up", "stopped", "dormant", "decommissioned"] as const;
export type Life = (typeof LIVES)[number];

export function lifeOf(host: Schemas["HostSummary"]): Life {
  const said = host.lifecycle === "active" ? host.liveness : host.lifecycle;
  return LIVES.find((life) => life === said) ?? "never_reported";
}

export const LIFE_TEXTS: Record<Life, Key> = {
  silent: "life.silent", pending: "life.pending", quarantined: "life.quarantined", never_reported: "life.never", late: "life.late",
  up: "life.up", stopped: "life.stopped", dormant: "life.dormant", decommissioned: "life.ended",
};
const HINTS: Record<Life, Key> = {
  silent: "life.silentHint", pending: "life.pendingHint", quarantined: "life.quarantinedHint", never_reported: "life.neverHint", late: "life.lateHint",
  up: "life.upHint", stopped: "life.stoppedHint", dormant: "life.dormantHint", decommissioned: "life.endedHint",
};
const GOODBYES: Record<string, Key> = { shutdown: "goodbye.shutdown", restart: "goodbye.restart", upgrade: "goodbye.upgrade", uninstall: "goodbye.uninstall" };

export function Liveness({ host }: { host: Schemas["HostSummary"] }): VNode {
  const life = lifeOf(host);
  const seen = host.last_seen_at ? Date.now() - Date.parse(host.last_seen_at) : null;
  const goodbye = host.goodbye ? GOODBYES[host.goodbye] : undefined;
  const title = [t(HINTS[life]), t("life.seen", { when: date(host.last_seen_at) })];
  if (goodbye) title.push(`${t(goodbye)} ${date(host.goodbye_at)}`);
  return (
    <span class={`life ${life}`} title={title.join("\n")}>
      <span class="dot" aria-hidden="true" />
      {t(LIFE_TEXTS[life])}
      {seen !== null && <small>{t("life.ago", { span: span(Math.max(1000, Math.floor(seen / 1000) * 1000)) })}</small>}
    </span>
  );
}
