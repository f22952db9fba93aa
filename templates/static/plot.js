/** Draws a quarter of an hour as SVG: some lines over one axis of time. */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 160;
const LEFT = 52;
const RIGHT = 4;
const TOP = 10;
const BOTTOM = 22;
/** From this width on there is room for one more word under the axis. */
const WIDE = 420;

/**
 * @param {HTMLElement} figure with a caption that has an `output`, and an `svg`
 * @param {{name: string, class: string, of: (sample: object) => number | undefined}[]} lines the first one is filled
 * @param {{format: (value: number) => string, time: (at: number) => string, ago: (minutes: number) => string,
 *   least: number, label: (now: string, most: string) => string}} words `least` is the lowest top of the axis
 */
export function plot(figure, lines, words) {
  const svg = figure.querySelector("svg");
  const output = figure.querySelector("output");
  let drawn = { samples: [], from: 0, until: 1, gap: 0 };
  let pointer = null;

  const x = (at) => LEFT + ((at - drawn.from) / (drawn.until - drawn.from)) * (width() - LEFT - RIGHT);
  const width = () => Math.max(svg.clientWidth, LEFT + RIGHT + 1);
  const floor = HEIGHT - BOTTOM;

  function draw() {
    const { samples, from, until, gap } = drawn;
    svg.setAttribute("viewBox", `0 0 ${width()} ${HEIGHT}`);
    const values = lines.flatMap((line) => samples.map(line.of)).filter((value) => value !== undefined);
    const top = niceTop(Math.max(words.least, ...values));
    const y = (value) => floor - (value / top) * (floor - TOP);
    const parts = [];
    for (const value of [0, top / 2, top]) {
      parts.push(element("path", { class: "grid", d: `M${LEFT} ${y(value)}H${width() - RIGHT}` }));
      parts.push(text(LEFT - 8, y(value) + 4, "end", words.format(value)));
    }
    for (const minutes of width() < WIDE ? [15, 5, 0] : [15, 10, 5, 0]) {
      const anchor = minutes === 15 ? "start" : minutes === 0 ? "end" : "middle";
      parts.push(text(x(until - minutes * 60_000), HEIGHT - 4, anchor, words.ago(minutes)));
    }
    lines.forEach((line, index) => {
      for (const run of runs(samples, line.of, gap)) {
        const points = run.map(({ at, value }) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`);
        if (index === 0) {
          const [first, last] = [x(run[0].at).toFixed(1), x(run.at(-1).at).toFixed(1)];
          parts.push(element("path", { class: "area", d: `M${first} ${floor}L${points.join("L")}L${last} ${floor}Z` }));
        }
        // One point alone is a dot, by the round ends of lines.
        parts.push(element("path", { class: `line ${line.class}`, d: `M${points.join("L")}${run.length > 1 ? "" : "h0.01"}` }));
      }
    });
    const pointed = pointer === null ? undefined : nearest(samples, pointer);
    if (pointed) parts.push(element("path", { class: "pointer", d: `M${x(pointed.time)} ${TOP}V${floor}` }));
    output.textContent = pointed ? reading(pointed) : "";
    svg.replaceChildren(...parts);
    const newest = samples.at(-1);
    svg.setAttribute("aria-label", words.label(newest ? read(newest) : "–", values.length ? words.format(Math.max(...values)) : "–"));
  }

  const read = (sample) => lines.map((line) => shown(line.of(sample))).join(" · ");
  const shown = (value) => (value === undefined ? "–" : words.format(value));
  const reading = (sample) => `${words.time(sample.time)} · ${read(sample)}`;

  svg.addEventListener("pointermove", ({ clientX }) => {
    const left = svg.getBoundingClientRect().left;
    const share = (clientX - left - LEFT) / (width() - LEFT - RIGHT);
    pointer = drawn.from + share * (drawn.until - drawn.from);
    draw();
  });
  svg.addEventListener("pointerleave", () => {
    pointer = null;
    draw();
  });
  new ResizeObserver(draw).observe(figure);

  return {
    /** @param {{time: number}[]} samples oldest first; two that lie further apart than `gap` are not joined */
    show(samples, from, until, gap) {
      drawn = { samples, from, until, gap };
      draw();
    },
  };
}

/** 1, 2 or 5 times a power of ten, at least `value`. */
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

function runs(samples, of, gap) {
  const found = [];
  let before = -Infinity;
  for (const sample of samples) {
    const value = of(sample);
    if (value === undefined) continue;
    if (sample.time - before > gap) found.push([]);
    found.at(-1).push({ at: sample.time, value });
    before = sample.time;
  }
  return found;
}

function nearest(samples, time) {
  const distance = (sample) => Math.abs(sample.time - time);
  return samples.reduce((best, sample) => (best && distance(best) <= distance(sample) ? best : sample), undefined);
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function text(x, y, anchor, content) {
  const made = element("text", { x, y, "text-anchor": anchor });
  made.textContent = content;
  return made;
}
