// Profiles: what hosts are told to do, by their labels. Which hosts would change, and how, is shown before
// a profile is kept.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { ask, path, read, Refusal, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { Empty, Failed, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { Inert } from "../../inert";
import { may } from "../../session";
import { t } from "../../texts";
import { date } from "../../time";
import { whole } from "../../units";
import { asRefusal, Dialog } from "./dialog";

type Profile = Schemas["Profile"];
type Preview = Schemas["Preview"];

interface Doing {
  profile: Profile | null;
  etag: string | null;
  what: "edit" | "delete";
}

/** A value of a configuration, as it is written. */
const written = (value: unknown): string => value === undefined ? "–" : JSON.stringify(value);

function Shows({ preview }: { preview: Preview }): VNode {
  return (
    <div role="status">
      <p>{t(preview.truncated ? "profile.wouldOfMany" : "profile.would", { changed: whole(preview.changed), examined: whole(preview.examined) })}</p>
      <ul tabIndex={0} aria-label={t("profile.preview")}>
        {preview.items.map((host) => (
          <li key={host.host_id}>
            <Inert text={host.host_name} />{" "}
            {host.changes.map((change) => <span key={change.key} class="label"><Inert text={`${change.key}: ${written(change.from)} → ${written(change.to)}`} /></span>)}
          </li>
        ))}
      </ul>
    </div>
  );
}

function parse(text: string): Schemas["Configuration"] {
  try {
    return JSON.parse(text) as Schemas["Configuration"];
  } catch (cause) {
    throw new Refusal(0, "invalid", t("profile.noJson", { cause: cause instanceof Error ? cause.message : String(cause) }));
  }
}

function Form({ doing: { profile, etag }, close }: { doing: Doing; close: () => void }): VNode {
  const [name, call] = useState(profile?.name ?? "");
  const [selector, choose] = useState(profile?.selector ?? "");
  const [priority, rank] = useState(String(profile?.priority ?? 0));
  const [text, write] = useState(JSON.stringify(profile?.configuration ?? { profile: { top: 20 } }, null, 2));
  const [preview, show] = useState<Preview | null>(null);
  const [error, fail] = useState<Refusal | null>(null);
  const [busy, work] = useState(false);
  const edited = (edit: () => void): void => {
    edit();
    show(null);
  };
  const body = (): Schemas["ProfileBody"] => ({ name: name.trim(), selector: selector.trim() === "" ? null : selector.trim(), priority: Number(priority), configuration: parse(text) });
  const send = async (question: () => Promise<void>): Promise<void> => {
    work(true);
    try {
      await question();
      fail(null);
    } catch (cause) {
      fail(asRefusal(cause));
    }
    work(false);
  };
  const look = (): Promise<void> => send(async () => show(await ask<Preview>("/v1/profiles/preview", { method: "POST", body: { profile_id: profile?.profile_id ?? null, profile: body() } })));
  const save = (event: Event): void => {
    event.preventDefault();
    void send(async () => {
      if (profile) await ask(`/v1/profiles/${profile.profile_id}`, { method: "PUT", body: body(), ifMatch: etag });
      else await ask("/v1/profiles", { method: "POST", body: body() });
      close();
    });
  };
  return (
    <section class="panel bulk" aria-label={t("profile.form")}>
      <h2>{t(profile ? "profile.edit" : "profile.new")}</h2>
      <form class="row" onSubmit={save}>
        <label>{t("column.name")}<input required maxLength={64} value={name} onInput={({ currentTarget }) => edited(() => call(currentTarget.value))} /></label>
        <label>{t("manage.selector")}<input class="filter" spellcheck={false} placeholder={t("profile.everyHost")} value={selector} onInput={({ currentTarget }) => edited(() => choose(currentTarget.value))} /></label>
        <label>{t("profile.priority")}<input type="number" min="-1000" max="1000" required value={priority} onInput={({ currentTarget }) => edited(() => rank(currentTarget.value))} /></label>
        <label class="whole">{t("profile.configuration")}<textarea rows={10} spellcheck={false} value={text} onInput={({ currentTarget }) => edited(() => write(currentTarget.value))} /></label>
        <button type="button" disabled={busy} onClick={() => void look()}>{t("bulk.preview")}</button>
        <button type="submit" class="primary" disabled={busy}>{t("act.save")}</button>
        <button type="button" onClick={close}>{t("act.cancel")}</button>
      </form>
      {error && <Failed error={error} />}
      {preview && <Shows preview={preview} />}
    </section>
  );
}

function Remove({ profile, etag, close }: { profile: Profile; etag: string | null; close: () => void }): VNode {
  const done = (): Promise<unknown> => ask(`/v1/profiles/${profile.profile_id}`, { method: "DELETE", ifMatch: etag });
  return <Dialog title={t("profile.deleteOf", { name: profile.name })} submit={t("profile.delete")} danger done={done} close={close}><p>{t("profile.deleteHint")}</p></Dialog>;
}

function columns(begin: (profile: Profile, what: Doing["what"]) => void): Column<Profile>[] {
  const shown: Column<Profile>[] = [
    { id: "name", title: t("column.name"), cell: (row) => <Inert text={row.name} /> },
    { id: "selector", title: t("manage.selector"), cell: (row) => row.selector ? <span class="label"><Inert text={row.selector} /></span> : <span class="hint">{t("profile.everyHost")}</span> },
    { id: "configuration", title: t("profile.configuration"), wide: true, cell: (row) => <code><Inert text={JSON.stringify(row.configuration)} /></code> },
    { id: "priority", title: t("profile.priority"), number: true, cell: (row) => whole(row.priority) },
    { id: "updated", title: t("profile.updated"), number: true, cell: (row) => date(row.updated_at) },
  ];
  if (may("configuration:write")) {
    shown.push({ id: "actions", title: t("manage.actions"), cell: (row) => (
      <span class="actions">
        <button type="button" onClick={() => begin(row, "edit")}>{t("profile.edit")}</button>
        <button type="button" class="danger" onClick={() => begin(row, "delete")}>{t("profile.delete")}</button>
      </span>
    ) });
  }
  return shown;
}

export function Profiles(): VNode {
  const asked = useAsked<Schemas["Page_Profile"]>(path("/v1/profiles"));
  const [doing, begin] = useState<Doing | null>(null);
  const [error, fail] = useState<Refusal | null>(null);
  const open = (profile: Profile, what: Doing["what"]): void => {
    // As it is now, with what names that state: whoever changed it meanwhile is not overwritten.
    read<Profile>(`/v1/profiles/${profile.profile_id}`).then(({ data, etag }) => {
      fail(null);
      begin({ profile: data, etag, what });
    }, (cause: unknown) => fail(asRefusal(cause)));
  };
  const close = (): void => {
    begin(null);
    asked.again();
  };
  return (
    <>
      {doing?.what === "edit" && <Form key={doing.profile?.profile_id ?? "new"} doing={doing} close={close} />}
      <section class="panel tables" aria-label={t("profile.title")}>
        <h2>{t("profile.title")}</h2>
        {may("configuration:write") && <div class="row"><button type="button" onClick={() => begin({ profile: null, etag: null, what: "edit" })}>{t("profile.new")}</button></div>}
        {doing?.what === "delete" && doing.profile && <Remove profile={doing.profile} etag={doing.etag} close={close} />}
        {error && <Failed error={error} />}
        <Shown of={asked}>
          {({ items }) => items.length === 0 ? <Empty>{t("profile.none")}</Empty> : <Table label={t("profile.title")} columns={columns(open)} rows={items} id={(row) => row.profile_id} />}
        </Shown>
      </section>
    </>
  );
}
