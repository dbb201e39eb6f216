// Channels: where messages go. Their addresses hold secrets, so they are typed here and never shown.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, path, Refusal, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { Empty, Failed, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { t } from "../../texts";
import { date } from "../../time";
import { whole } from "../../units";
import { asRefusal, Dialog } from "../hosts/dialog";

type Channel = Schemas["Channel"];
type Kind = Schemas["Kind"];
const KINDS: Kind[] = ["wecom", "dingtalk", "feishu", "slack", "webhook", "email", "alertmanager"];
const SIGNED: Kind[] = ["dingtalk", "feishu", "webhook", "email", "alertmanager"];
const ADDRESSES: Partial<Record<Kind, string>> = {
  email: "smtp://mail.example:587?from=procfleet@example.com&to=dba@example.com&user=procfleet",
  alertmanager: "http://alertmanager-1.example:9093 http://alertmanager-2.example:9093",
};

function NewChannel({ close }: { close: () => void }): VNode {
  const [kind, choose] = useState<Kind>("wecom");
  const [name, call] = useState("");
  const [language, speak] = useState<Schemas["Language"]>("en");
  const [url, point] = useState("");
  const [secret, sign] = useState("");
  const done = (): Promise<unknown> => ask("/v1/channels", { method: "POST", body: { kind, name: name.trim(), language, url: url.trim(), secret: SIGNED.includes(kind) && secret !== "" ? secret : null } });
  return (
    <Dialog title={t("channel.new")} submit={t("channel.make")} done={done} close={close}>
      <label>{t("channel.kind")}
        <select value={kind} onChange={({ currentTarget }) => choose(KINDS.find((one) => one === currentTarget.value) ?? "wecom")}>
          {KINDS.map((one) => <option key={one} value={one}>{one}</option>)}
        </select>
      </label>
      <label>{t("column.name")}<input required maxLength={64} value={name} onInput={(event) => call(event.currentTarget.value)} /></label>
      <label>{t("channel.language")}
        <select value={language} onChange={({ currentTarget }) => speak(currentTarget.value === "zh" ? "zh" : "en")}><option value="en">English</option><option value="zh">中文</option></select>
      </label>
      <label>{t("channel.url")}<input required type={ADDRESSES[kind] === undefined ? "url" : "text"} placeholder={ADDRESSES[kind]} autocomplete="off" maxLength={2048} value={url} onInput={(event) => point(event.currentTarget.value)} /></label>
      {SIGNED.includes(kind) && <label>{t("channel.secret")}<input type="password" autocomplete="off" maxLength={2048} value={secret} onInput={(event) => sign(event.currentTarget.value)} /></label>}
      <p class="hint">{t("channel.hint")}</p>
    </Dialog>
  );
}

interface Said {
  id: string;
  text: string;
  good: boolean;
}

function columns(test: (channel: Channel) => void, remove: (channel: Channel) => void, said: Said | null): Column<Channel>[] {
  return [
    { id: "name", title: t("column.name"), wide: true, cell: (row) => <Inert text={row.name} /> },
    { id: "kind", title: t("channel.kind"), cell: (row) => row.kind },
    { id: "language", title: t("channel.language"), cell: (row) => row.language },
    { id: "queued", title: t("channel.queued"), number: true, cell: (row) => whole(row.queued) },
    { id: "dead", title: t("channel.dead"), number: true, cell: (row) => <span class={row.dead > 0 ? "error" : undefined}>{whole(row.dead)}</span> },
    { id: "held", title: t("channel.held"), number: true, cell: (row) => row.held_until ? date(row.held_until) : "–" },
    { id: "actions", title: t("manage.actions"), cell: (row) => (
      <span class="actions">
        <button type="button" onClick={() => test(row)}>{t("channel.test")}</button>
        <button type="button" class="danger" onClick={() => remove(row)}>{t("channel.delete")}</button>
        {said?.id === row.channel_id && <span role="status" class={said.good ? "tag new" : "tag gone"}><Inert text={said.text} /></span>}
      </span>
    ) },
  ];
}

function Remove({ channel, close }: { channel: Channel; close: () => void }): VNode {
  const done = (): Promise<unknown> => ask(`/v1/channels/${channel.channel_id}`, { method: "DELETE" });
  return <Dialog title={t("channel.deleteOf", { name: channel.name })} submit={t("channel.delete")} danger done={done} close={close}><p>{t("channel.deleteHint")}</p></Dialog>;
}

export function Channels(): VNode {
  const asked = useAsked<Schemas["Page_Channel"]>(path("/v1/channels"));
  const [making, make] = useState(false);
  const [removing, remove] = useState<Channel | null>(null);
  const [said, say] = useState<Said | null>(null);
  const [error, fail] = useState<Refusal | null>(null);
  const test = (channel: Channel): void => {
    say({ id: channel.channel_id, text: t("state.loading"), good: true });
    ask<Schemas["ChannelTest"]>(`/v1/channels/${channel.channel_id}/test`, { method: "POST" }).then(
      ({ delivered, answer }) => say({ id: channel.channel_id, text: delivered ? t("channel.delivered") : (answer ?? t("channel.refused")), good: delivered }),
      (cause: unknown) => {
        say(null);
        fail(asRefusal(cause));
      },
    );
  };
  const close = (): void => {
    make(false);
    remove(null);
    asked.again();
  };
  return (
    <section class="panel tables" aria-label={t("alerts.channels")}>
      <div class="row first"><button type="button" class="primary" onClick={() => make(true)}>{t("channel.new")}</button></div>
      {making && <NewChannel close={close} />}
      {removing && <Remove channel={removing} close={close} />}
      {error && <Failed error={error} />}
      <Shown of={asked}>
        {({ items }) => items.length === 0 ? <Empty>{t("channel.none")}</Empty> : <Table label={t("alerts.channels")} columns={columns(test, remove, said)} rows={items} id={(row) => row.channel_id} />}
      </Shown>
    </section>
  );
}
