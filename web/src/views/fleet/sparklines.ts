// The lines of the hosts in sight, asked together, a moment after the scrolling stopped.
import { useEffect, useRef, useState } from "preact/hooks";
import { path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { range } from "../../time";

export type Sparklines = ReadonlyMap<string, Schemas["SparkLine"]>;

interface Known {
  window: string;
  answer: Schemas["SparkAnswer"] | null;
  lines: Sparklines;
}

const PAUSE_MS = 120;
const MOST = 100;

/** The value, once it has not changed for a moment. */
function useSettled(value: string): string {
  const [settled, settle] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => settle(value), settled === "" ? 0 : PAUSE_MS);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

export function useSparklines(hosts: Schemas["HostSummary"][]): Sparklines {
  const { from, to } = range.value;
  const ids = useSettled(hosts.slice(0, MOST).map((host) => host.host_id).sort().join());
  // The list itself says when the server cannot be asked.
  const { data } = useAsked<Schemas["SparkAnswer"]>(ids === "" ? null : path("/v1/sparklines", { hosts: ids, from, to }));
  const known = useRef<Known>({ window: "", answer: null, lines: new Map() });
  const window = `${from} ${to}`;
  if (known.current.window !== window) known.current = { window, answer: null, lines: new Map() };
  if (data && data !== known.current.answer) {
    // Another map, not the same one with more in it: a row whose properties are what they were is not drawn again.
    const lines = new Map(known.current.lines);
    for (const line of data.hosts) lines.set(line.host_id, line);
    known.current = { window, answer: data, lines };
  }
  return known.current.lines;
}
