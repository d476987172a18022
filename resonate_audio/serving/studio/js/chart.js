// A line chart that can be read with the eyes, the mouse, and a screen reader.

import { el, svg } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [320, 140, 50, 18];

/** Four digits at most. */
export function digits(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000 && size < 1e7) return value.toFixed(0).replace("-", "−");
  const short = size && size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  return short.replaceAll("-", "−");
}

/** A figure of one series of [step, value]. */
export function lineChart(title, points) {
  const [steps, values] = [points.map((p) => p[0]), points.map((p) => p[1])];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const span = high - low;
  const x = (step) => LEFT + ((step - steps[0]) / (steps.at(-1) - steps[0] || 1)) * (WIDTH - LEFT - 6);
  const y = (value) => 8 + (span ? 1 - (value - low) / span : 0.5) * (HEIGHT - BOTTOM - 14);
  const path = points.map(([step, value], n) => `${n ? "L" : "M"}${x(step).toFixed(1)},${y(value).toFixed(1)}`).join("");
  const dot = svg("circle", { r: 3.5, class: "dot", cx: -9, cy: -9 });
  const said = `${title}: from ${digits(values[0])} to ${digits(values.at(-1))} in steps ${steps[0]} to ${steps.at(-1)}; lowest ${digits(low)}, highest ${digits(high)}`;
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said },
    ...[high, low].map((value) => svg("line", { class: "rule", x1: LEFT, x2: WIDTH - 6, y1: y(value), y2: y(value) })),
    ...(high > low ? [high, low] : [high]).map((value) => svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, digits(value))),
    svg("text", { x: LEFT, y: HEIGHT - 3 }, String(steps[0])),
    svg("text", { x: WIDTH - 6, y: HEIGHT - 3, "text-anchor": "end" }, String(steps.at(-1))),
    svg("path", { class: "line", d: points.length > 1 ? path : `${path}h.01` }),
    dot,
  );
  const now = el("output", { class: "clock" }, digits(values.at(-1)));
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDTH;
    const [step, value] = points.reduce((best, p) => (Math.abs(x(p[0]) - at) < Math.abs(x(best[0]) - at) ? p : best));
    dot.setAttribute("cx", x(step));
    dot.setAttribute("cy", y(value));
    now.textContent = `${digits(value)} at ${step}`;
  });
  return el("figure", { class: "chart" }, el("figcaption", {}, el("b", {}, title), now), drawing);
}
