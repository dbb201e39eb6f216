// What this replica takes in, from its own metrics: totals since its start, rates between two looks.
import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { pulse } from "../../time";
import { t, type Key } from "../../texts";
import { short, whole } from "../../units";

const SHOWN: { metric: string; text: Key; gauge?: boolean }[] = [
  { metric: "procfleet_ingest_reports_total", text: "ingest.reports" },
  { metric: "procfleet_ingest_rows_total", text: "ingest.rows" },
  { metric: "procfleet_ingest_groups_total", text: "ingest.groups" },
  { metric: "procfleet_ingest_shed_total", text: "ingest.shed" },
  { metric: "procfleet_ingest_queue_depth", text: "ingest.queue", gauge: true },
  { metric: "procfleet_server_connections", text: "ingest.connections", gauge: true },
];

/** Sums of all series of the metrics above. */
function read(text: string): Map<string, number> {
  const sums = new Map<string, number>();
  for (const line of text.split("\n")) {
    const name = /^[a-z_]+(?=[{ ])/.exec(line)?.[0];
    if (name === undefined || !SHOWN.some(({ metric }) => metric === name)) continue;
    sums.set(name, (sums.get(name) ?? 0) + Number(line.slice(line.lastIndexOf(" ") + 1)));
  }
  return sums;
}

interface Look {
  at: number;
  sums: Map<string, number>;
}

export function Ingest(): VNode {
  const [now, see] = useState<Look | null>(null);
  const before = useRef<Look | null>(null);
  const beat = pulse.value;
  useEffect(() => {
    const abort = new AbortController();
    fetch("/metrics", { signal: abort.signal })
      .then((response) => response.text())
      .then((text) => see((last) => {
        before.current = last;
        return { at: performance.now(), sums: read(text) };
      }))
      // Maintenance, asked at the same time, says when the server cannot be asked.
      .catch(() => undefined);
    return () => abort.abort();
  }, [beat]);
  const rate = (metric: string): number | null => {
    const last = before.current;
    if (!now || !last) return null;
    return (((now.sums.get(metric) ?? 0) - (last.sums.get(metric) ?? 0)) * 1000) / (now.at - last.at);
  };
  return (
    <dl class="facts panel big" aria-label={t("ingest.title")}>
      {SHOWN.map(({ metric, text, gauge }) => (
        <div key={metric}>
          <dt>{t(text)}</dt>
          <dd>{now ? whole(now.sums.get(metric) ?? 0) : "–"}{!gauge && <small>{t("ingest.rate", { rate: short(rate(metric)) })}</small>}</dd>
        </div>
      ))}
    </dl>
  );
}
