// Logging in with an API key. The address stays, so that a link leads where it should after it.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { Refusal } from "../api/client";
import { Preferences } from "../app";
import { logIn } from "../session";
import { t } from "../texts";

export function LoginView(): VNode {
  const [key, setKey] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const submit = (event: Event): void => {
    event.preventDefault();
    setBusy(true);
    logIn(key.trim()).catch((cause: unknown) => {
      const refused = cause instanceof Refusal && cause.status === 401;
      setError(refused ? t("login.refused") : cause instanceof Error ? cause.message : String(cause));
      setBusy(false);
    });
  };
  return (
    <main class="alone">
      <form class="login panel" onSubmit={submit}>
        <div class="login-head"><h1>Procfleet</h1><Preferences /></div>
        <p>{t("login.claim")}</p>
        <label>
          {t("login.key")}
          <input type="password" name="api-key" autoComplete="current-password" autoFocus required placeholder="pfk1_…" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
        </label>
        {error && <p class="error" role="alert">{error}</p>}
        <button type="submit" class="primary" disabled={busy || key.trim() === ""}>{t("login.submit")}</button>
        <p class="hint">{t("login.hint")}</p>
        <code>procfleet-server api-keys create --direct --name me --role viewer</code>
      </form>
    </main>
  );
}
