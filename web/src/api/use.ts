// What a view asks: loaded when its question changes, asked again with every pulse, and kept on the
// screen while the next answer is on its way. A question that is no longer wanted is cancelled; one
// that a slow server has not answered yet is not asked a second time.
import { useEffect, useRef, useState } from "preact/hooks";
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
  question: string | null;
  data: T | null;
  error: Refusal | null;
}

interface Flight {
  question: string;
  tries: number;
  abort: AbortController;
}

const asRefusal = (error: unknown): Refusal =>
  error instanceof Refusal ? error : new Refusal(0, "failed", error instanceof Error ? error.message : String(error));

/** Loads what `question` names; null loads nothing. `still`: once, whatever the clock says. */
export function useLoaded<T>(question: string | null, load: (signal: AbortSignal) => Promise<T>, still = false): Asked<T> {
  const [kept, keep] = useState<Kept<T>>({ question: null, data: null, error: null });
  const [tries, retry] = useState(0);
  const flight = useRef<Flight | null>(null);
  const beat = still ? -1 : pulse.value;
  useEffect(() => {
    const under = flight.current;
    if (under?.question === question && under.tries === tries) return;
    under?.abort.abort();
    flight.current = null;
    if (question === null) return;
    const mine = { question, tries, abort: new AbortController() };
    flight.current = mine;
    const landed = (): void => {
      if (flight.current === mine) flight.current = null;
    };
    load(mine.abort.signal).then(
      (data) => {
        landed();
        if (!mine.abort.signal.aborted) keep({ question, data, error: null });
      },
      (error: unknown) => {
        landed();
        if (!mine.abort.signal.aborted) keep((before) => ({ question, data: before.question === question ? before.data : null, error: asRefusal(error) }));
      },
    );
  }, [question, beat, tries]);
  useEffect(() => () => flight.current?.abort.abort(), []);
  const again = (): void => retry(tries + 1);
  if (question === null) return { data: null, error: null, loading: false, again };
  return { data: kept.data, error: kept.error, loading: kept.question !== question, again };
}

/** Asks `path`; null asks nothing. */
export function useAsked<T>(path: string | null, still = false): Asked<T> {
  return useLoaded<T>(path, (signal) => ask<T>(path ?? "", { signal }), still);
}
