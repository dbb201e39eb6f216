// Chooses the window of time.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { t, type Key } from "../texts";
import { bounds, clock, isLive, paused, PRESETS, range, shift, show } from "../time";

const PRESET_TEXTS: Record<(typeof PRESETS)[number], Key> = {
  "-15m": "range.15m", "-1h": "range.1h", "-6h": "range.6h", "-1d": "range.1d", "-7d": "range.7d", "-30d": "range.30d",
};

/** What `datetime-local` reads: local time without its zone. */
function local(ms: number): string {
  const at = new Date(ms - new Date(ms).getTimezoneOffset() * 60_000);
  return at.toISOString().slice(0, 19);
}

function Exact({ done }: { done: () => void }): VNode {
  const [begin, end] = bounds(range.value);
  const [from, setFrom] = useState(local(begin));
  const [to, setTo] = useState(local(end));
  const good = Date.parse(from) < Date.parse(to);
  const apply = (event: Event): void => {
    event.preventDefault();
    if (!good) return;
    show(new Date(from).toISOString(), new Date(to).toISOString());
    done();
  };
  return (
    <form class="exact" onSubmit={apply}>
      <label>{t("range.from")}<input type="datetime-local" step="1" value={from} onInput={(e) => setFrom(e.currentTarget.value)} /></label>
      <label>{t("range.to")}<input type="datetime-local" step="1" value={to} onInput={(e) => setTo(e.currentTarget.value)} /></label>
      <button type="submit" class="primary" disabled={!good}>{t("range.apply")}</button>
    </form>
  );
}

export function RangePicker(): VNode {
  const [open, setOpen] = useState(false);
  const { from, to } = range.value;
  const [begin, end] = bounds(range.value);
  const live = isLive.value;
  return (
    <div class="range" role="group" aria-label={t("range.label")}>
      <div class="segments">
        {PRESETS.map((preset) => {
          const chosen = live && from === preset;
          return (
            <button key={preset} type="button" aria-pressed={chosen} onClick={() => show(preset, "now")}>{t(PRESET_TEXTS[preset])}</button>
          );
        })}
      </div>
      <div class="segments">
        <button type="button" title={t("range.earlier")} aria-label={t("range.earlier")} onClick={() => shift(-0.5)}>←</button>
        <button type="button" aria-expanded={open} onClick={() => setOpen(!open)}>
          {clock(begin, false)} – {live ? t("range.now") : clock(end, false)}
        </button>
        <button type="button" title={t("range.later")} aria-label={t("range.later")} disabled={live} onClick={() => shift(0.5)}>→</button>
        <button type="button" title={t("range.wider")} aria-label={t("range.wider")} onClick={() => shift(0, 2)}>−</button>
      </div>
      {live && (
        <button type="button" class="live" aria-pressed={!paused.value} onClick={() => (paused.value = !paused.value)}>
          <span class={paused.value ? "dot" : "dot on"} aria-hidden="true" />{paused.value ? t("range.paused") : t("range.live")}
        </button>
      )}
      {open && <Exact key={`${from} ${to}`} done={() => setOpen(false)} />}
    </div>
  );
}
