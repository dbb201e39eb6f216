// A table of a bounded number of rows: columns say what they hold, how to show it, and whether the
// server can sort by it.
import type { ComponentChildren, VNode } from "preact";

export interface Column<Row> {
  id: string;
  title: string;
  /** Said when the pointer rests on the title. */
  hint?: string;
  cell: (row: Row) => ComponentChildren;
  /** Numbers stand at the right. */
  number?: boolean;
  /** Takes what room is left. */
  wide?: boolean;
  sort?: () => void;
  sorted?: boolean;
}

interface Props<Row> {
  label: string;
  columns: Column<Row>[];
  rows: Row[];
  id: (row: Row) => string;
  mark?: (row: Row) => string;
}

const classOf = (column: { number?: boolean; wide?: boolean }): string =>
  [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ");

function Title<Row>({ column }: { column: Column<Row> }): VNode {
  const { sort, sorted, title, hint } = column;
  return (
    <th scope="col" class={classOf(column)} title={hint} aria-sort={sorted ? "descending" : undefined}>
      {sort ? <button type="button" class="sort" onClick={sort}>{title}{sorted && <span aria-hidden="true"> ▾</span>}</button> : title}
    </th>
  );
}

export function Table<Row>({ label, columns, rows, id, mark }: Props<Row>): VNode {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={label}>
      <table>
        <caption class="unseen">{label}</caption>
        <thead><tr>{columns.map((column) => <Title key={column.id} column={column} />)}</tr></thead>
        <tbody>
          {rows.map((row) => (
            <tr key={id(row)} class={mark?.(row)}>
              {columns.map((column) => <td key={column.id} class={classOf(column)}>{column.cell(row)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
