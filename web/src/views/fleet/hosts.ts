// All hosts, page by page.
import { ask, path, type Schemas } from "../../api/client";
import { useLoaded, type Asked } from "../../api/use";

type Host = Schemas["HostSummary"];
type Page = Schemas["Page_HostSummary"];

/** More hosts than anybody looks through: a server that always has another page ends here. */
const MAX_PAGES = 50;

async function all(signal: AbortSignal): Promise<Host[]> {
  const hosts: Host[] = [];
  let after: string | null = null;
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const answer: Page = await ask<Page>(path("/v1/hosts", { limit: 1000, after }), { signal });
    hosts.push(...(answer.items as Host[]));
    after = answer.next ?? null;
    if (after === null) break;
  }
  return hosts;
}

export const useHosts = (): Asked<Host[]> => useLoaded("hosts", all);
