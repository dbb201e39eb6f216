// What stands where data would be: loading, nothing, an error.
import type { ComponentChildren, VNode } from "preact";
import type { Refusal } from "../api/client";
import { t } from "../texts";

export function Loading(): VNode {
  return <div class="state" role="status"><span class="spinner" aria-hidden="true" />{t("state.loading")}</div>;
}

export function Empty({ children }: { children: ComponentChildren }): VNode {
  return <div class="state">{children}</div>;
}

export function Failed({ error, again }: { error: Refusal; again?: () => void }): VNode {
  return (
    <div class="state failed" role="alert">
      <strong>{error.status === 0 ? t("state.unreachable") : t("state.failed")}</strong>
      <span>{error.message}</span>
      {error.requestId && <code>{error.requestId}</code>}
      {again && <button type="button" onClick={again}>{t("state.again")}</button>}
    </div>
  );
}

interface Props<T> {
  of: { data: T | null; error: Refusal | null; loading: boolean; again: () => void };
  children: (data: T) => ComponentChildren;
}

/** The data, dimmed while they are of an earlier question; else why there are none. */
export function Shown<T>({ of, children }: Props<T>): VNode {
  if (of.data === null) return of.error ? <Failed error={of.error} again={of.again} /> : <Loading />;
  return (
    <div class={of.loading ? "shown stale" : "shown"} aria-busy={of.loading}>
      {of.error && <Failed error={of.error} again={of.again} />}
      {children(of.data)}
    </div>
  );
}
