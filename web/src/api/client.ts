// Asking the server. Types are made from openapi.yaml (`npm run types`), so that a field that the
// server no longer has does not compile.
import type { components } from "./schema";

export type Schemas = components["schemas"];
type Problem = Schemas["Problem"];

/** An answer that is not one: what the server said, or that it said nothing. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly requestId: string | null = null,
  ) {
    super(detail);
  }
}

/** Called when the server no longer knows who we are. */
export const strangers = { met: (): void => undefined };

interface Request {
  method?: "GET" | "POST" | "PUT" | "DELETE";
  body?: unknown;
  /** Only if what is overwritten is still as this `ETag` names it. */
  ifMatch?: string | null;
  signal?: AbortSignal;
}

/** One question. `T` is the answer's type by the API's description; null for an answer without a body. */
export const ask = async <T,>(path: string, request: Request = {}): Promise<T> => (await read<T>(path, request)).data;

/** The same, with what names the state of the answer: null, where the server names none. */
export async function read<T>(path: string, { method = "GET", body, ifMatch, signal }: Request = {}): Promise<{ data: T; etag: string | null }> {
  const init: RequestInit = { method, credentials: "same-origin", headers: { accept: "application/json" } };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { ...init.headers, "content-type": "application/json" };
  }
  if (ifMatch) init.headers = { ...init.headers, "if-match": ifMatch };
  if (signal) init.signal = signal;
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refusal(0, "unreachable", error instanceof Error ? error.message : String(error));
  }
  if (!response.ok) throw await refusal(response);
  const text = await response.text();
  return { data: (text === "" ? null : JSON.parse(text)) as T, etag: response.headers.get("etag") };
}

async function refusal(response: Response): Promise<Refusal> {
  if (response.status === 401) strangers.met();
  try {
    const problem = (await response.json()) as Problem;
    return new Refusal(response.status, problem.code, problem.detail ?? problem.title, problem.request_id ?? null);
  } catch {
    return new Refusal(response.status, "unreadable", response.statusText);
  }
}

/** `path` with its query; empty values are left out. */
export function path(base: string, query: Record<string, string | number | null | undefined> = {}): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text === "" ? base : `${base}?${text}`;
}

export const hostPath = (host: string, rest = ""): string => `/v1/hosts/${encodeURIComponent(host)}${rest}`;
