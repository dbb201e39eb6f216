// Looking for a command line, a port, a user, a container, a unit or an md5 across the fleet.
import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { Empty } from "../components/states";
import { place, select } from "../router";
import { t, type Key } from "../texts";
import { CommandLines } from "./search/commands";
import { Instances } from "./search/instances";

export const FIELDS = ["command", "port", "owner", "container", "unit", "pid", "md5"] as const;
export type Field = (typeof FIELDS)[number];

const TEXTS: Record<Field, Key> = {
  command: "search.command", port: "search.port", owner: "search.owner", container: "search.container",
  unit: "search.unit", pid: "search.pid", md5: "search.md5",
};
const HINTS: Record<Field, string> = {
  command: "mysqld --port=3307", port: "3306", owner: "mysql", container: "4f5a…", unit: "nginx.service", pid: "4711", md5: "9e107d9d372bb6826bd81d3542a419d6",
};

function fieldOf(): Field {
  const asked = place.value.query.get("by");
  return FIELDS.find((field) => field === asked) ?? "command";
}

function Found({ field, words }: { field: Field; words: string }): VNode {
  if (words === "") return <Empty>{t("search.begin")}</Empty>;
  const isNumber = /^\d{1,10}$/.test(words);
  if ((field === "port" || field === "pid") && !isNumber) return <Empty>{t("search.number")}</Empty>;
  if (field === "md5" && !/^[0-9a-fA-F]{32}$/.test(words)) return <Empty>{t("search.hex")}</Empty>;
  return field === "command" || field === "md5" ? <CommandLines field={field} words={words} /> : <Instances field={field} words={words} />;
}

export function SearchView(): VNode {
  const field = fieldOf();
  const words = place.value.query.get("q") ?? "";
  const [typed, type] = useState(words);
  const submit = (event: Event): void => {
    event.preventDefault();
    select({ q: typed.trim() });
  };
  return (
    <div class="view">
      <form class="bar search-bar" role="search" onSubmit={submit}>
        <h1>{t("menu.search")}</h1>
        <label class="unseen" for="search-by">{t("search.by")}</label>
        <select id="search-by" value={field} onChange={(event) => select({ by: event.currentTarget.value === "command" ? null : event.currentTarget.value }, true)}>
          {FIELDS.map((one) => <option key={one} value={one}>{t(TEXTS[one])}</option>)}
        </select>
        <input type="search" class="filter" aria-label={t(TEXTS[field])} placeholder={HINTS[field]} value={typed} autoFocus onInput={(event) => type(event.currentTarget.value)} />
        <button type="submit" class="primary">{t("search.submit")}</button>
      </form>
      <Found field={field} words={words} />
    </div>
  );
}
