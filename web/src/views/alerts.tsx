// What is wrong and who was told: open alerts and their history, silences, rules, channels. Which of
// them is shown stands in the address.
import type { VNode } from "preact";
import { place, select } from "../router";
import { may } from "../session";
import { t, type Key } from "../texts";
import { AlertList } from "./alerts/list";
import { Channels } from "./alerts/channels";
import { Rules } from "./alerts/rules";
import { Silences } from "./alerts/silences";

const PARTS = { open: "alerts.open", history: "alerts.history", silences: "alerts.silences", rules: "alerts.rules", channels: "alerts.channels" } as const satisfies Record<string, Key>;
type Part = keyof typeof PARTS;
const isPart = (text: string | null): text is Part => text !== null && text in PARTS;

function Shows({ part }: { part: Part }): VNode {
  switch (part) {
    case "silences": return <Silences />;
    case "rules": return <Rules />;
    case "channels": return <Channels />;
    default: return <AlertList key={part} open={part === "open"} />;
  }
}

export function AlertsView(): VNode {
  const said = place.value.query.get("part");
  const part = isPart(said) ? said : "open";
  const parts = (Object.keys(PARTS) as Part[]).filter((one) => one !== "channels" || may("channels:write"));
  return (
    <div class="view">
      <div class="bar">
        <h1>{t("menu.alerts")}</h1>
        <div class="segments" role="group" aria-label={t("menu.alerts")}>
          {parts.map((one) => <button key={one} type="button" aria-pressed={one === part} onClick={() => select({ part: one === "open" ? null : one })}>{t(PARTS[one])}</button>)}
        </div>
      </div>
      <Shows part={part} />
    </div>
  );
}
