// Charts by uPlot, each with the same figures as a table for who cannot see them.

import { h, row, table } from "./dom.js";
import uPlot from "./vendor/uPlot.esm.js";

const HEIGHT = 240;
const DARK = matchMedia("(prefers-color-scheme: dark)");

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// `x` are numbers (seconds where `isTime`), each series {label, values, colour, show, paths, fill}; `show` makes text of
// a value. Returns {node, stop}.
export function chart({ title, x, series, isTime = true, showX, showY, columns }) {
  const place = h("div", { class: "chart", role: "img", "aria-label": title });
  let plot = null;
  const draw = () => {
    plot?.destroy();
    plot = new uPlot(options(place.clientWidth || 600), [x, ...series.map(({ values }) => values)], place);
  };
  const options = (width) => ({
    width,
    height: HEIGHT,
    scales: { x: { time: isTime } },
    cursor: { drag: { x: false } },
    axes: [axis(showX ? { space: 110, values: (_, at) => at.map(showX) } : {}), axis({ size: 64, values: (_, at) => at.map(showY ?? String) })],
    series: [
      { label: columns[0], ...(showX ? { value: (_, at) => (at === null ? "–" : showX(at)) } : {}) },
      ...series.map((each) => ({
        label: each.label,
        stroke: colour(each.colour),
        fill: each.fill ? `${colour(each.colour)}33` : undefined,
        width: 1.8,
        paths: each.paths,
        points: { show: x.length < 3 },
        value: (_, value) => (value === null || value === undefined ? "–" : (each.show ?? showY ?? String)(value)),
      })),
    ],
  });
  const observer = new ResizeObserver(() => {
    if (!plot) draw();
    else if (plot.width !== place.clientWidth) plot.setSize({ width: place.clientWidth, height: HEIGHT });
  });
  observer.observe(place);
  DARK.addEventListener("change", draw);
  const asTable = h(
    "details",
    null,
    h("summary", null, "As a table"),
    table(title, columns, x.map((at, place) => row(columns, [showX ? showX(at) : new Date(at * 1000).toLocaleString(), ...series.map(({ values, show }) => (values[place] === null || values[place] === undefined ? "–" : (show ?? showY ?? String)(values[place])))]))),
  );
  return {
    node: h("figure", { class: "figure-chart" }, place, asTable),
    stop: () => {
      observer.disconnect();
      DARK.removeEventListener("change", draw);
      plot?.destroy();
    },
  };
}

const axis = (more) => ({ stroke: colour("soft"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 }, ...more });

export const steps = uPlot.paths.stepped({ align: 1 });
export const bars = uPlot.paths.bars({ size: [0.8, 40] });
