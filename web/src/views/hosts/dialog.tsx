// A question that waits for an answer: the browser keeps the focus in it, and Escape ends it.
import type { ComponentChildren, VNode } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Refusal } from "../../api/client";
import { Failed } from "../../components/states";
import { t } from "../../texts";

interface Props {
  title: string;
  submit: string;
  danger?: boolean;
  children: ComponentChildren;
  /** What the answer does; the dialog stays, with the error, when it fails. */
  done: () => Promise<unknown>;
  close: () => void;
}

export const asRefusal = (cause: unknown): Refusal => (cause instanceof Refusal ? cause : new Refusal(0, "failed", cause instanceof Error ? cause.message : String(cause)));

export function Dialog({ title, submit, danger, children, done, close }: Props): VNode {
  const box = useRef<HTMLDialogElement>(null);
  const heading = useId();
  const [error, fail] = useState<Refusal | null>(null);
  const [busy, work] = useState(false);
  useEffect(() => box.current?.showModal(), []);
  const send = (event: Event): void => {
    event.preventDefault();
    work(true);
    done().then(close, (cause: unknown) => {
      fail(asRefusal(cause));
      work(false);
    });
  };
  return (
    <dialog ref={box} class="ask" aria-labelledby={heading} onClose={close}>
      <form onSubmit={send}>
        <h2 id={heading}>{title}</h2>
        {children}
        {error && <Failed error={error} />}
        <div class="row">
          <button type="button" onClick={() => box.current?.close()}>{t("act.cancel")}</button>
          <button type="submit" class={danger ? "danger" : "primary"} disabled={busy}>{submit}</button>
        </div>
      </form>
    </dialog>
  );
}
