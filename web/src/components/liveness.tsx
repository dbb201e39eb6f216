// Whether a host is heard of.
import type { VNode } from "preact";
import type { Schemas } from "../api/client";
import { t, type Key } from "../texts";
import { date } from "../time";
import { span } from "../units";

export type Life = "live" | "silent" | "never" | "ended";

export function lifeOf(host: Schemas["HostSummary"]): Life {
  if (host.lifecycle === "decommissioned") return "ended";
  if (host.silent === null || host.silent === undefined) return "never";
  return host.silent ? "silent" : "live";
}

const TEXTS: Record<Life, Key> = { live: "life.live", silent: "life.silent", never: "life.never", ended: "life.ended" };

export function Liveness({ host }: { host: Schemas["HostSummary"] }): VNode {
  const life = lifeOf(host);
  const seen = host.last_seen_at ? Date.now() - Date.parse(host.last_seen_at) : null;
  return (
    <span class={`life ${life}`} title={t("life.seen", { when: date(host.last_seen_at) })}>
      <span class="dot" aria-hidden="true" />
      {t(TEXTS[life])}
      {seen !== null && <small>{t("life.ago", { span: span(Math.max(1000, Math.floor(seen / 1000) * 1000)) })}</small>}
    </span>
  );
}
