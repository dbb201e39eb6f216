// The lines of the hosts in sight, asked together, a moment after the scrolling stopped.
import { useEffect, useRef, useState } from "preact/hooks";
import { ask, path, type Schemas } from "../../api/client";
import { pulse, range } from "../../time";

type Line = Schemas["SparkLine"];
export type Sparklines = ReadonlyMap<string, Line>;

const PAUSE_MS = 120;
const MOST = 100;

export function useSparklines(hosts: Schemas["HostSummary"][]): Sparklines {
  const [lines, setLines] = useState<Sparklines>(new Map());
  const shown = useRef("");
  const { from, to } = range.value;
  const ids = hosts.slice(0, MOST).map((host) => host.host_id).sort().join();
  const beat = pulse.value;
  useEffect(() => {
    if (ids === "") return;
    const abort = new AbortController();
    const window = `${from} ${to}`;
    const timer = setTimeout(() => {
      ask<Schemas["SparkAnswer"]>(path("/v1/sparklines", { hosts: ids, from, to }), { signal: abort.signal }).then(
        (answer) => setLines((before) => {
          const kept = new Map(shown.current === window ? before : []);
          shown.current = window;
          for (const line of answer.hosts) kept.set(line.host_id, line);
          return kept;
        }),
        // The list itself says when the server cannot be asked.
        () => undefined,
      );
    }, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [ids, from, to, beat]);
  return lines;
}
