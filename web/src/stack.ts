// From the server's stack (sums per bucket, by process) to what a chart draws: rates, from the bottom up.
import type { Schemas } from "./api/client";
import { plain } from "./inert";

export type Resource = "cpu" | "memory" | "disk" | "network";
export const RESOURCES: readonly Resource[] = ["cpu", "memory", "disk", "network"];
export type Values = (number | null)[];

export interface Layer {
  key: string;
  kind: "process" | "remaining" | "residual";
  name: string;
  commandLine: string | null;
  processId: string | null;
  values: Values;
}

export interface Stack {
  /** Ends of the buckets, s since the Unix epoch. */
  times: number[];
  /** Begin of each bucket. */
  begins: number[];
  /** From the bottom up. */
  layers: Layer[];
  /** What the host as a whole used. */
  total: Values | null;
}

/** A short name for a process: the kernel's, or the file's of its command line. */
export function nameOf(executable: string | null | undefined, commandLine: string | null | undefined): string {
  if (executable) return plain(executable);
  const first = (commandLine ?? "").split(/\s/, 1)[0] ?? "";
  return plain(first.slice(first.lastIndexOf("/") + 1)).slice(0, 32) || "?";
}

/** Turns a bucket's sum into a rate; memory is one already. */
function rate(resource: Resource, value: number | null | undefined, coveredMs: number | null | undefined): number | null {
  if (value === null || value === undefined) return null;
  if (resource === "memory") return value;
  if (!coveredMs) return null;
  return resource === "cpu" ? value / (coveredMs * 1000) : (value / coveredMs) * 1000;
}

export function stackOf(answer: Schemas["StackAnswer"], resource: Resource): Stack {
  const { times_ms, covered_ms, step_s } = answer;
  const layer = (of: Omit<Layer, "values">, values: (number | null | undefined)[]): Layer => ({
    ...of, values: times_ms.map((_, at) => rate(resource, values[at], covered_ms[at])),
  });
  const layers = answer.processes.map((line) => {
    const name = nameOf(line.executable_name, line.command_line);
    const processId = line.process_id ?? null;
    return layer({ key: processId ?? "?", kind: "process", name, commandLine: line.command_line ?? null, processId }, line.values);
  });
  const rest = { name: "", commandLine: null, processId: null };
  if (answer.remaining.some(Boolean)) layers.push(layer({ key: "remaining", kind: "remaining", ...rest }, answer.remaining));
  if (answer.residual.some(Boolean)) layers.push(layer({ key: "residual", kind: "residual", ...rest }, answer.residual));
  const known = layers.filter((one) => one.values.some((value) => value !== null));
  const times = times_ms.map((ms) => ms / 1000);
  // A sample by itself reaches back to the one before, at most; a bucket is as wide as asked, however little of it is covered.
  const begins = times.map((end, at) => (step_s ? end - step_s : Math.max(times[at - 1] ?? 0, end - (covered_ms[at] || 1000) / 1000)));
  return { times, begins, layers: known, total: null };
}

/** What the host's own samples say of a resource, at the stack's times. */
export function totalAt(stack: Stack, samples: Schemas["HostPoint"][], resource: Resource): Values {
  const known = new Map<number, number | null>();
  for (const sample of samples) known.set(Math.round(Date.parse(sample.sampled_at) / 1000), totalOf(sample, resource));
  return stack.times.map((time) => known.get(Math.round(time)) ?? null);
}

function totalOf(sample: Schemas["HostPoint"], resource: Resource): number | null {
  const both = (one: number | null | undefined, other: number | null | undefined): number | null =>
    one === null || one === undefined ? (other ?? null) : one + (other ?? 0);
  const ms = sample.interval_ms;
  switch (resource) {
    case "cpu": return rate("cpu", both(sample.cpu_user_us, sample.cpu_system_us), ms);
    case "memory": return sample.memory_used_bytes ?? null;
    case "disk": return rate("disk", both(sample.disk_read_bytes, sample.disk_write_bytes), ms);
    case "network": return rate("network", both(sample.network_receive_bytes, sample.network_transmit_bytes), ms);
  }
}

export interface Drawn {
  times: number[];
  /** Sums up to and with each layer, from the bottom up. */
  sums: Values[];
  total: Values | null;
  /** Place in the stack of each drawn time; -1 for one put in to break a line. */
  places: number[];
}

/** Adds the layers up, and breaks the lines where nothing was sampled. */
export function draw({ times, begins, layers, total }: Stack): Drawn {
  const drawn: Drawn = { times: [], sums: layers.map(() => []), total: total ? [] : null, places: [] };
  const put = (time: number, at: number): void => {
    drawn.times.push(time);
    drawn.places.push(at);
    let sum = 0;
    layers.forEach((layer, n) => {
      sum += at < 0 ? 0 : (layer.values[at] ?? 0);
      drawn.sums[n]?.push(at < 0 ? null : sum);
    });
    drawn.total?.push(at < 0 ? null : (total?.[at] ?? null));
  };
  times.forEach((time, at) => {
    const begin = begins[at] ?? time;
    const before = times[at - 1];
    // A step reaches back to the time before it: where that is too far, a break and a begin of its own.
    if (before === undefined || begin - before > (time - begin) * 0.5) {
      put(begin - 0.001, -1);
      put(begin, at);
    }
    put(time, at);
  });
  return drawn;
}

/** Mean over the window, weighed by nothing: buckets are of one width. */
export function mean(values: Values): number | null {
  const known = values.filter((value): value is number => value !== null);
  return known.length === 0 ? null : known.reduce((sum, value) => sum + value, 0) / values.length;
}
