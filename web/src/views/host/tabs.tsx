// What the tables below the charts show. The tab is part of the address.
import type { VNode } from "preact";
import type { Schemas } from "../../api/client";
import { Loading } from "../../components/states";
import { place, select } from "../../router";
import { t, type Key } from "../../texts";
import { clock } from "../../time";
import { Changes } from "./changes";
import { Connections } from "./connections";
import { BlockDevices, Filesystems, Interfaces } from "./devices";
import { Exits } from "./exits";
import { Processes } from "./processes";
import { chosen, unchoose } from "./selection";

const TABS = ["processes", "changes", "connections", "exits", "filesystems", "devices", "interfaces"] as const;
type Tab = (typeof TABS)[number];
const TEXTS: Record<Tab, Key> = {
  processes: "tab.processes", changes: "tab.changes", connections: "tab.connections", exits: "tab.exits",
  filesystems: "tab.filesystems", devices: "tab.devices", interfaces: "tab.interfaces",
};

interface Props {
  host: string;
  detail: Schemas["HostDetail"] | null;
}

function Content({ tab, host, detail }: Props & { tab: Tab }): VNode {
  switch (tab) {
    case "processes": return <Processes host={host} />;
    case "changes": return <Changes host={host} />;
    case "connections": return <Connections host={host} />;
    case "exits": return <Exits host={host} />;
    case "filesystems": return detail ? <Filesystems of={detail.filesystems} /> : <Loading />;
    case "devices": return detail ? <BlockDevices of={detail.block_devices} /> : <Loading />;
    case "interfaces": return detail ? <Interfaces of={detail.network_interfaces} /> : <Loading />;
  }
}

/** The moment that the tables are of; a click leads back to the whole window. */
function Moment(): VNode {
  const moment = chosen();
  if (!moment) return <span class="moment-note">{t("moment.window")}</span>;
  return (
    <span class="moment-note chosen">
      {t("moment.at", { from: clock(moment.from * 1000), to: clock(moment.to * 1000) })}
      <button type="button" onClick={unchoose}>{t("moment.clear")}</button>
    </span>
  );
}

export function Tabs({ host, detail }: Props): VNode {
  const asked = place.value.query.get("tab");
  const tab = TABS.find((tab) => tab === asked) ?? "processes";
  const step = (event: KeyboardEvent): void => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by === undefined) return;
    const next = TABS[(TABS.indexOf(tab) + by + TABS.length) % TABS.length] ?? tab;
    select({ tab: next === "processes" ? null : next }, true);
    requestAnimationFrame(() => document.getElementById(`tab-${next}`)?.focus());
  };
  return (
    <section class="panel tables">
      <div class="tabs-bar">
        <div role="tablist" aria-label={t("tab.label")} class="tabs" onKeyDown={step}>
          {TABS.map((one) => (
            <button
              key={one} id={`tab-${one}`} role="tab" type="button" aria-selected={one === tab} aria-controls="tab-content" tabIndex={one === tab ? 0 : -1}
              onClick={() => select({ tab: one === "processes" ? null : one }, true)}
            >{t(TEXTS[one])}</button>
          ))}
        </div>
        <Moment />
      </div>
      <div id="tab-content" role="tabpanel" aria-labelledby={`tab-${tab}`}>
        <Content tab={tab} host={host} detail={detail} />
      </div>
    </section>
  );
}
