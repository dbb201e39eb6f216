// In which order hosts are listed.
import type { Schemas } from "../../api/client";
import { LIVES, lifeOf } from "../../components/liveness";
import { place } from "../../router";

type Host = Schemas["HostSummary"];

export const ORDERS = ["name", "life", "cpu", "memory", "load"] as const;
export type Order = (typeof ORDERS)[number];

export function orderOf(): Order {
  const asked = place.value.query.get("order");
  return ORDERS.find((order) => order === asked) ?? "name";
}

const names = new Intl.Collator(undefined, { numeric: true });

function weight(host: Host, order: Order): number {
  switch (order) {
    case "name": return 0;
    case "life": return -LIVES.indexOf(lifeOf(host));
    case "cpu": return host.cpu_utilization_ratio ?? -1;
    case "memory": return host.memory_total_bytes ? (host.memory_used_bytes ?? 0) / host.memory_total_bytes : -1;
    case "load": return host.load_1m ?? -1;
  }
}

export function sorted(hosts: Host[], order: Order): Host[] {
  return hosts.toSorted((one, other) => weight(other, order) - weight(one, order) || names.compare(one.host_name, other.host_name));
}
