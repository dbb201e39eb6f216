// What the filter's words mean: `name=value` is a label, anything else a part of the host's name.
import type { Schemas } from "../../api/client";

export function matches(host: Schemas["HostSummary"], filter: string): boolean {
  const labels = (host.labels ?? {}) as Record<string, string>;
  return filter.split(/\s+/).filter(Boolean).every((word) => {
    const [name = "", value] = word.split("=", 2);
    if (value === undefined) return host.host_name.toLowerCase().includes(word.toLowerCase());
    return (labels[name] ?? "").startsWith(value) && name in labels;
  });
}
