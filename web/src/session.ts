// Who is logged in. The cookie is out of reach of scripts: the server is asked.
import { signal } from "@preact/signals";
import { ask, Refusal, strangers, type Schemas } from "./api/client";

export type Session = Schemas["SessionAnswer"];

/** undefined: not known yet; null: nobody. */
export const session = signal<Session | null | undefined>(undefined);
/** Why the server could not be asked. */
export const trouble = signal<Refusal | null>(null);

strangers.met = () => {
  session.value = null;
};

/** Says that this browser logged in once, so that who never did is not asked for in vain. */
const KEPT = "procfleet.known";

export async function recall(): Promise<void> {
  if (localStorage.getItem(KEPT) === null) {
    session.value = null;
    return;
  }
  try {
    session.value = await ask<Session>("/v1/session");
    trouble.value = null;
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) {
      localStorage.removeItem(KEPT);
      session.value = null;
    } else if (error instanceof Refusal) trouble.value = error;
    else throw error;
  }
}

export async function logIn(apiKey: string): Promise<void> {
  session.value = await ask<Session>("/v1/session", { method: "POST", body: { api_key: apiKey } });
  localStorage.setItem(KEPT, "1");
}

export async function logOut(): Promise<void> {
  await ask<null>("/v1/session", { method: "DELETE" });
  localStorage.removeItem(KEPT);
  session.value = null;
}

/** Whether the key has this scope. The server decides; the page only leaves out what would be refused. */
export const may = (scope: Schemas["Scope"]): boolean => session.value?.scopes.includes(scope) ?? false;
