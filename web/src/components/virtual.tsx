// A list of thousands of rows of one height: only those in sight are in the document. It scrolls with
// the page's own scroll bar inside a box, so that the keyboard works as everywhere.
import type { ComponentChildren, VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props<Row> {
  label: string;
  rows: Row[];
  /** Height of a row, px. */
  height: number;
  head: ComponentChildren;
  row: (row: Row, index: number) => ComponentChildren;
  id: (row: Row) => string;
  /** Told which rows are in sight. */
  seen?: (rows: Row[]) => void;
}

/** Rows beyond the edge, so that scrolling never shows a hole. */
const BEYOND = 8;

export function Virtual<Row>({ label, rows, height, head, row, id, seen }: Props<Row>): VNode {
  const box = useRef<HTMLDivElement>(null);
  const [top, scrolled] = useState(0);
  const [room, measured] = useState(600);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const observer = new ResizeObserver(() => measured(element.clientHeight));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  // A list that became shorter has no row where the scroll bar still is until the browser moves it.
  const at = Math.min(top, Math.max(0, rows.length * height - room));
  const first = Math.max(0, Math.floor(at / height) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((at + room) / height) + BEYOND);
  const shown = rows.slice(first, last);
  const key = shown.map(id).join();
  useEffect(() => seen?.(shown), [key]);
  return (
    <div
      class="virtual" ref={box} role="table" aria-label={label} aria-rowcount={rows.length + 1} tabIndex={0}
      onScroll={(event) => scrolled(event.currentTarget.scrollTop)}
    >
      <div class="virtual-head" role="rowgroup">{head}</div>
      <div role="rowgroup" class="virtual-body" style={{ height: `${rows.length * height}px` }}>
        <div style={{ transform: `translateY(${first * height}px)` }} role="presentation">
          {shown.map((one, offset) => row(one, first + offset))}
        </div>
      </div>
    </div>
  );
}
