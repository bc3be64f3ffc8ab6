// Where energy came from, as a bar and in words.

import { h, svg } from "./dom.js";
import { kwh } from "./format.js";

export const SOURCES = ["solar", "wind", "hydro", "biomass", "other", "none"];
const COLOURS = { solar: "sun", wind: "one", hydro: "three", biomass: "two", other: "four", none: "bar" };

const parts = (origin) =>
  SOURCES.map((source) => [source, BigInt(origin[`${source}Wh`])]).filter(([, wh]) => wh > 0n);

export function originBar(origin) {
  const found = parts(origin);
  const whole = found.reduce((sum, [, wh]) => sum + wh, 0n);
  if (whole === 0n) return h("span", { class: "muted" }, "nothing");
  const text = found.map(([source, wh]) => `${source === "none" ? "of no known source" : source} ${kwh(wh)}`).join(", ");
  let at = 0;
  return h(
    "div",
    null,
    svg(
      "svg",
      { class: "origin", viewBox: "0 0 1000 10", preserveAspectRatio: "none", role: "img", "aria-label": text },
      found.map(([source, wh]) => {
        const width = Number((wh * 1000n) / whole);
        const part = svg("rect", { x: at, width, height: 10, class: `source-${COLOURS[source]}` });
        at += width;
        return part;
      }),
    ),
    h("span", { class: "muted" }, text),
  );
}

// How full a token is.
export function battery(percent, label) {
  return svg(
    "svg",
    { class: "battery", viewBox: "0 0 100 160", role: "img", "aria-label": label },
    svg("rect", { x: 35, y: 2, width: 30, height: 12, rx: 3, class: "shell" }),
    svg("rect", { x: 8, y: 12, width: 84, height: 144, rx: 12, class: "shell" }),
    svg("rect", { x: 16, y: 20 + 128 * (1 - percent / 100), width: 68, height: 128 * (percent / 100), rx: 6, class: percent > 20 ? "charge" : "charge low" }),
    svg("text", { x: 50, y: 92, "text-anchor": "middle" }, `${percent} %`),
  );
}
