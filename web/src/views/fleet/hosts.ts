// All hosts, page by page; what came is shown while the rest comes.
import { useEffect, useState } from "preact/hooks";
import { ask, path, Refusal, type Schemas } from "../../api/client";
import type { Asked } from "../../api/use";
import { pulse } from "../../time";

type Host = Schemas["HostSummary"];
type Page = Schemas["Page_HostSummary"];

/** More hosts than anybody looks through: a server that always has another page ends here. */
const MAX_PAGES = 50;

async function all(signal: AbortSignal, first: (hosts: Host[]) => void): Promise<Host[]> {
  const hosts: Host[] = [];
  let after: string | null = null;
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const answer: Page = await ask<Page>(path("/v1/hosts", { limit: 1000, after }), { signal });
    hosts.push(...(answer.items as Host[]));
    after = answer.next ?? null;
    if (after === null) break;
    if (page === 0) first([...hosts]);
  }
  return hosts;
}

export function useHosts(): Asked<Host[]> {
  const [data, setData] = useState<Host[] | null>(null);
  const [error, setError] = useState<Refusal | null>(null);
  const [tries, retry] = useState(0);
  const beat = pulse.value;
  useEffect(() => {
    const abort = new AbortController();
    all(abort.signal, (hosts) => setData((before) => before ?? hosts)).then(
      (hosts) => {
        setData(hosts);
        setError(null);
      },
      (cause: unknown) => {
        if (!abort.signal.aborted) setError(cause instanceof Refusal ? cause : new Refusal(0, "failed", String(cause)));
      },
    );
    return () => abort.abort();
  }, [beat, tries]);
  return { data, error, loading: false, again: () => retry(tries + 1) };
}
