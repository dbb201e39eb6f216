// What a host is, on one line.
import type { VNode } from "preact";
import type { Schemas } from "../../api/client";
import { Liveness } from "../../components/liveness";
import { Inert } from "../../inert";
import { t } from "../../texts";
import { bytes, short, span, whole } from "../../units";

export function Head({ host }: { host: Schemas["HostDetail"] }): VNode {
  const labels = Object.entries((host.labels ?? {}) as Record<string, string>);
  const uptime = host.sample?.uptime_s;
  return (
    <div class="head">
      <h1><Inert text={host.host_name} /></h1>
      <Liveness host={host} />
      <dl class="facts">
        <div><dt>{t("host.cpus")}</dt><dd>{whole(host.cpu_count)}</dd></div>
        <div><dt>{t("host.memory")}</dt><dd>{bytes(host.memory_total_bytes)}</dd></div>
        <div><dt>{t("host.load")}</dt><dd>{short(host.sample?.load_1m)} {short(host.sample?.load_5m)} {short(host.sample?.load_15m)}</dd></div>
        <div><dt>{t("host.uptime")}</dt><dd>{span(uptime === null || uptime === undefined ? null : uptime * 1000)}</dd></div>
        <div><dt>{t("host.system")}</dt><dd><Inert text={host.os_description ?? host.kernel_release} /></dd></div>
        <div><dt>{t("host.agent")}</dt><dd><Inert text={host.agent_version} /></dd></div>
      </dl>
      {labels.map(([name, value]) => <span key={name} class="label"><Inert text={`${name}=${value}`} /></span>)}
    </div>
  );
}
