// How a stack is drawn and what the pointer does to it.
import uPlot from "uplot";
import { locale } from "../texts";

export interface Chosen {
  /** s since the Unix epoch. */
  from: number;
  to: number;
}

export interface Look {
  axis: string;
  grid: string;
  total: string;
  chosen: string;
}

export interface Handlers {
  bounds: () => [number, number];
  chosen: () => Chosen | null;
  format: (value: number) => string;
  /** Whether the numbers are bytes, whose round numbers are powers of two. */
  binary: boolean;
  hover: (index: number | null) => void;
  choose: (index: number) => void;
  zoom: (from: number, to: number) => void;
}

/** Narrower drags are clicks, px. */
const LEAST_DRAG = 6;
const HEIGHT = 190;
/** Steps of an axis of bytes: 1 B to 512 PiB. */
const BINARY_STEPS = Array.from({ length: 60 }, (_, power) => 2 ** power);
const FONT = "11px system-ui, sans-serif";
const stepped = uPlot.paths.stepped?.({ align: -1 });

/** Charts of one page share the pointer's moment, and nothing else of it. */
const moments = uPlot.sync("moments");
const isMoment = (type: string): boolean => type === "mousemove" || type === "mouseleave";

function series(colours: string[], withTotal: boolean, look: Look): uPlot.Series[] {
  const paths = stepped ? { paths: stepped } : {};
  const layers = colours.toReversed().map((fill) => ({ fill, stroke: fill, width: 0, points: { show: false }, ...paths }));
  const total = { stroke: look.total, width: 1.5, dash: [3, 3], points: { show: false }, spanGaps: false, ...paths };
  return [{}, ...layers, ...(withTotal ? [total] : [])];
}

function axes(look: Look, binary: boolean, format: (value: number) => string): uPlot.Axis[] {
  const common = { stroke: look.axis, font: FONT, grid: { stroke: look.grid, width: 1 }, ticks: { show: false } };
  return [
    { ...common, size: 24, space: 70, values: (_: uPlot, splits: number[]) => splits.map((at, n) => tick(at, splits[n + 1] ?? splits[n - 1] ?? at)) },
    { ...common, size: 66, space: 32, ...(binary ? { incrs: BINARY_STEPS } : {}), values: (_: uPlot, splits: number[]) => splits.map(format) },
  ];
}

function tick(at: number, other: number): string {
  const time = new Date(at * 1000);
  const gap = Math.abs(other - at);
  if (gap >= 86_000 || (time.getHours() === 0 && time.getMinutes() === 0 && gap >= 60)) {
    return time.toLocaleDateString(locale.value, { month: "short", day: "numeric" });
  }
  const seconds = gap < 60 ? { second: "2-digit" as const } : {};
  return time.toLocaleTimeString(locale.value, { hour: "2-digit", minute: "2-digit", hour12: false, ...seconds });
}

/** The moment that is shown in the table, as a band. */
function paintChosen(plot: uPlot, chosen: Chosen | null, colour: string): void {
  if (!chosen) return;
  const left = plot.valToPos(chosen.from, "x", true);
  const right = plot.valToPos(chosen.to, "x", true);
  const { top, height } = plot.bbox;
  plot.ctx.save();
  plot.ctx.fillStyle = colour;
  plot.ctx.globalAlpha = 0.22;
  plot.ctx.fillRect(left, top, Math.max(2, right - left), height);
  plot.ctx.globalAlpha = 1;
  plot.ctx.fillRect(right - 1, top, 2, height);
  plot.ctx.restore();
}

export function options(width: number, colours: string[], withTotal: boolean, look: Look, handlers: Handlers): uPlot.Options {
  let dragged = false;
  const selected = (plot: uPlot): void => {
    const { left, width: wide } = plot.select;
    if (wide < LEAST_DRAG) return;
    dragged = true;
    handlers.zoom(plot.posToVal(left, "x") * 1000, plot.posToVal(left + wide, "x") * 1000);
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  };
  const ready = (plot: uPlot): void => {
    plot.over.addEventListener("mousedown", () => (dragged = false));
    plot.over.addEventListener("click", () => {
      if (!dragged && plot.cursor.idx !== null && plot.cursor.idx !== undefined) handlers.choose(plot.cursor.idx);
    });
  };
  return {
    width,
    height: HEIGHT,
    padding: [8, 6, 0, 0],
    legend: { show: false },
    // Names of an enum that exists in the declarations only.
    drawOrder: ["series", "axes"] as unknown as uPlot.DrawOrderKey[],
    series: series(colours, withTotal, look),
    axes: axes(look, handlers.binary, handlers.format),
    scales: {
      x: { time: true, range: () => handlers.bounds() },
      y: { range: (_, __, most) => [0, Number.isFinite(most) && most > 0 ? most * 1.06 : 1] },
    },
    cursor: {
      y: false,
      points: { show: false },
      drag: { x: true, y: false, setScale: false, dist: LEAST_DRAG },
      sync: { key: moments.key, setSeries: false, filters: { pub: isMoment, sub: isMoment } },
      bind: { dblclick: () => () => null },
    },
    hooks: {
      ready: [ready],
      setSelect: [selected],
      setCursor: [(plot) => handlers.hover(plot.cursor.idx ?? null)],
      draw: [(plot) => paintChosen(plot, handlers.chosen(), look.chosen)],
    },
  };
}
