// A stack by process on a canvas. The pointer shows a moment, a click chooses it, dragging zooms; with
// the keyboard, arrows move, Enter chooses, + and − zoom.
import uPlot from "uplot";
import type { VNode } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { draw, type Drawn, type Stack } from "../stack";
import { colour, theme } from "../theme";
import { locale } from "../texts";
import { options, type Chosen } from "./stackoptions";

interface Props {
  label: string;
  stack: Stack;
  colours: string[];
  format: (value: number) => string;
  binary: boolean;
  /** Of the window, s since the Unix epoch. */
  bounds: [number, number];
  chosen: Chosen | null;
  /** The bucket under the pointer; null: none. */
  hover: (at: number | null) => void;
  /** A bucket was chosen. */
  choose: (at: number) => void;
  /** A window was dragged, ms. */
  zoom: (from: number, to: number) => void;
}

/** From the top down, so that lower layers are painted over higher ones; the host's own line last. */
function columns({ times, sums, total }: Drawn): uPlot.AlignedData {
  return [times, ...sums.toReversed(), ...(total ? [total] : [])] as uPlot.AlignedData;
}

export function StackChart(props: Props): VNode {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const now = useRef(props);
  const drawn = useRef<Drawn>(draw(props.stack));
  now.current = props;
  const shape = `${theme.value} ${locale.value} ${props.colours.join()} ${props.stack.total !== null}`;

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    drawn.current = draw(now.current.stack);
    const handlers = {
      bounds: () => now.current.bounds,
      chosen: () => now.current.chosen,
      format: (value: number) => now.current.format(value),
      binary: now.current.binary,
      hover: (index: number | null) => now.current.hover(index === null ? null : place(index)),
      choose: (index: number) => {
        const at = place(index);
        if (at !== null) now.current.choose(at);
      },
      zoom: (from: number, to: number) => now.current.zoom(from, to),
    };
    const place = (index: number): number | null => {
      const at = drawn.current.places[index] ?? -1;
      return at < 0 ? null : at;
    };
    const look = { axis: colour("axis"), grid: colour("grid"), total: colour("total"), chosen: colour("chosen") };
    const made = new uPlot(options(element.clientWidth, now.current.colours, now.current.stack.total !== null, look, handlers), columns(drawn.current), element);
    made.over.setAttribute("aria-hidden", "true");
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: element.clientHeight }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape]);

  useEffect(() => {
    drawn.current = draw(props.stack);
    plot.current?.setData(columns(drawn.current));
  }, [props.stack, props.bounds[0], props.bounds[1]]);

  useEffect(() => plot.current?.redraw(false), [props.chosen?.from, props.chosen?.to]);

  const key = (event: KeyboardEvent): void => {
    const made = plot.current;
    if (!made) return;
    const count = drawn.current.times.length;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    const index = made.cursor.idx ?? (step === undefined || step > 0 ? -1 : count);
    if (step !== undefined && count > 0) {
      const next = Math.min(count - 1, Math.max(0, index + step));
      made.setCursor({ left: made.valToPos(drawn.current.times[next] ?? 0, "x"), top: 1 });
    } else if (event.key === "Enter" && made.cursor.idx !== null && made.cursor.idx !== undefined) {
      const at = drawn.current.places[made.cursor.idx] ?? -1;
      if (at >= 0) props.choose(at);
    } else if (event.key === "+" || event.key === "-") {
      const [from, to] = props.bounds;
      const middle = made.cursor.idx ? (drawn.current.times[made.cursor.idx] ?? from) : (from + to) / 2;
      const half = ((to - from) / 2) * (event.key === "+" ? 0.5 : 2);
      props.zoom((middle - half) * 1000, (middle + half) * 1000);
    } else return;
    event.preventDefault();
  };
  return <div class="plot" ref={box} tabIndex={0} role="application" aria-label={props.label} onKeyDown={key} />;
}
