// What is different from an hour before: who appeared, who vanished, who uses more.
import type { VNode } from "preact";
import { path, type Schemas } from "../../api/client";
import { useAsked } from "../../api/use";
import { ProcessCell } from "../../components/process";
import { Empty, Shown } from "../../components/states";
import { Table, type Column } from "../../components/table";
import { RESOURCES, type Resource } from "../../stack";
import { t } from "../../texts";
import { bytes, bytesPerSecond, short, whole } from "../../units";
import { TITLES } from "./charts";
import { sortBy, sortOf, tableWindow } from "./selection";

type Change = Schemas["Change"];

function shown(resource: Resource, value: number | null | undefined): string {
  if (resource === "memory") return bytes(value);
  return resource === "cpu" ? short(value === null || value === undefined ? null : value / 1e6) : bytesPerSecond(value);
}

function What({ row }: { row: Change }): VNode | null {
  if (row.base_value === null || row.base_value === undefined) return <span class="tag new">{t("change.new")}</span>;
  if (row.value === null || row.value === undefined) return <span class="tag gone">{t("change.gone")}</span>;
  return null;
}

function columns(host: string, sort: Resource): Column<Change>[] {
  const signed = (value: number): string => (value > 0 ? `+${shown(sort, value)}` : shown(sort, value));
  return [
    { id: "process", title: t("column.process"), wide: true, cell: (row) => <ProcessCell processId={row.process_id} commandLine={row.command_line} executable={row.executable_name} host={host} /> },
    { id: "what", title: t("column.what"), cell: (row) => <What row={row} /> },
    { id: "base", title: t("column.before"), number: true, cell: (row) => shown(sort, row.base_value) },
    { id: "value", title: t("column.now"), number: true, cell: (row) => shown(sort, row.value) },
    { id: "change", title: t("column.change"), number: true, cell: (row) => <strong class={row.change > 0 ? "more" : "less"}>{signed(row.change)}</strong> },
    { id: "runs", title: t("column.runs"), number: true, cell: (row) => whole(row.instance_count) },
  ];
}

export function Changes({ host }: { host: string }): VNode {
  const sort = sortOf();
  const asked = useAsked<Schemas["CompareAnswer"]>(path("/v1/compare", { host, ...tableWindow(), back: "1h", sort, limit: 50 }));
  return (
    <>
      <div class="segments in-table" role="group" aria-label={t("change.by")}>
        {RESOURCES.map((one) => <button key={one} type="button" aria-pressed={one === sort} onClick={() => sortBy(one)}>{t(TITLES[one])}</button>)}
      </div>
      <Shown of={asked}>
        {({ changes }) => changes.length === 0
          ? <Empty>{t("change.empty")}</Empty>
          : <Table label={t("tab.changes")} columns={columns(host, sort)} rows={changes} id={(row) => String(row.place)} />}
      </Shown>
    </>
  );
}
