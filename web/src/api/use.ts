// What a view asks: loaded when its question changes, asked again with every pulse, and kept on the
// screen while the next answer is on its way. A question that is no longer wanted is cancelled.
import { useEffect, useState } from "preact/hooks";
import { ask, Refusal } from "./client";
import { pulse } from "../time";

export interface Asked<T> {
  data: T | null;
  error: Refusal | null;
  /** Whether the data are of an earlier question, or there are none yet. */
  loading: boolean;
  again: () => void;
}

interface Kept<T> {
  path: string | null;
  data: T | null;
  error: Refusal | null;
}

const asRefusal = (error: unknown): Refusal =>
  error instanceof Refusal ? error : new Refusal(0, "failed", error instanceof Error ? error.message : String(error));

/** Asks `path`; null asks nothing. `still`: asked once, whatever the clock says. */
export function useAsked<T>(path: string | null, still = false): Asked<T> {
  const [kept, keep] = useState<Kept<T>>({ path: null, data: null, error: null });
  const [tries, retry] = useState(0);
  const beat = still ? -1 : pulse.value;
  useEffect(() => {
    if (path === null) return;
    const abort = new AbortController();
    ask<T>(path, { signal: abort.signal }).then(
      (data) => keep({ path, data, error: null }),
      (error: unknown) => {
        if (!abort.signal.aborted) keep((before) => ({ ...before, path, error: asRefusal(error) }));
      },
    );
    return () => abort.abort();
  }, [path, beat, tries]);
  const again = (): void => retry(tries + 1);
  if (path === null) return { data: null, error: null, loading: false, again };
  return { data: kept.data, error: kept.error, loading: kept.path !== path, again };
}
