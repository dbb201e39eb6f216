// Makes an enrolment token and shows, once, what to type on the host. The token never stands in the
// arguments of a command: it is read from a file that the agent deletes.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, Refusal, type Schemas } from "../../api/client";
import { Failed } from "../../components/states";
import { t } from "../../texts";
import { labelsIn } from "./labels";

type Made = Schemas["CreatedEnrollmentToken"];

// Where the server mirrors a release the agent is installed as well; elsewhere it is there already, from a package.
const command = ({ paste, install_command }: Made): string =>
  [
    "sudo install -m 600 /dev/stdin /root/procfleet-token <<'TOKEN'",
    paste,
    "TOKEN",
    ...(install_command
      ? [`${install_command} --token-file /root/procfleet-token`]
      : ["sudo procfleet-agent enroll --token-file /root/procfleet-token", "sudo systemctl enable --now procfleet-agent"]),
  ].join("\n");

function Command({ token }: { token: Made }): VNode {
  const [copied, copy] = useState(false);
  const text = command(token);
  const write = (): void => {
    navigator.clipboard.writeText(text).then(() => copy(true), () => undefined);
  };
  return (
    <div class="enrol-command" role="status">
      <p>{t("enrol.run")}</p>
      <pre tabIndex={0}>{text}</pre>
      <div class="row"><button type="button" class="primary" onClick={write}>{copied ? t("enrol.copied") : t("enrol.copy")}</button><span class="hint">{t("enrol.once")}</span></div>
    </div>
  );
}

export function Enrol({ made }: { made: () => void }): VNode {
  const [name, setName] = useState("");
  const [hours, setHours] = useState("24");
  const [uses, setUses] = useState("1");
  const [labels, label] = useState("");
  const [ephemeral, comeAndGo] = useState(false);
  const [token, show] = useState<Made | null>(null);
  const [error, fail] = useState<Refusal | null>(null);
  const submit = (event: Event): void => {
    event.preventDefault();
    const typed = labelsIn(labels.split(","));
    if (typed.wrong !== null) return fail(new Refusal(0, "invalid", t("act.labelsWrong", { line: typed.wrong })));
    const body = { name: name.trim(), ttl_s: Number(hours) * 3600, max_uses: uses === "" ? null : Number(uses), labels: typed.labels, ephemeral };
    ask<Made>("/v1/enrollment-tokens", { method: "POST", body }).then(
      (created) => {
        show(created);
        fail(null);
        made();
      },
      (cause: unknown) => fail(cause instanceof Refusal ? cause : new Refusal(0, "failed", String(cause))),
    );
  };
  return (
    <section class="panel enrol" aria-label={t("enrol.title")}>
      <h2>{t("enrol.title")}</h2>
      <p class="hint">{t("enrol.hint")}</p>
      <form class="row" onSubmit={submit}>
        <label>{t("enrol.name")}<input required maxLength={64} value={name} placeholder={t("enrol.nameHint")} onInput={(event) => setName(event.currentTarget.value)} /></label>
        <label>{t("enrol.hours")}<input type="number" min="1" max="2160" required value={hours} onInput={(event) => setHours(event.currentTarget.value)} /></label>
        <label>{t("enrol.uses")}<input type="number" min="1" value={uses} placeholder="∞" onInput={(event) => setUses(event.currentTarget.value)} /></label>
        <label>{t("enrol.labels")}<input spellcheck={false} placeholder={t("bulk.labelsHint")} value={labels} onInput={(event) => label(event.currentTarget.value)} /></label>
        <label class="tick"><input type="checkbox" checked={ephemeral} onInput={(event) => comeAndGo(event.currentTarget.checked)} />{t("enrol.ephemeral")}</label>
        <button type="submit" class="primary">{t("enrol.submit")}</button>
      </form>
      {error && <Failed error={error} />}
      {token && <Command key={token.token_id} token={token} />}
    </section>
  );
}
