// Drawings, as SVG at the width that there is; drawn anew when it changes.

function chart(label, high, draw) {
  const box = h("div", { class: "chart", style: { height: `${high}px` } });
  let width = 0;
  new ResizeObserver(() => {
    if (!box.clientWidth || box.clientWidth === width) return;
    width = box.clientWidth;
    const svg = s("svg", { width, height: high, viewBox: `0 0 ${width} ${high}`, role: "img", "aria-label": label });
    box.replaceChildren(draw(svg, width, high) || svg);
  }).observe(box);
  return box;
}

function ticks(low, high, about) {
  const rough = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((m) => m >= rough * 0.999);
  const found = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) found.push(Number(v.toPrecision(12)));
  return found;
}

// A plane with axes: `at` maps values to pixels.
function plane(svg, { width, high, left = 56, right = 14, top = 14, bottom = 34, x, y, xText, yText, xLabel, yLabel }) {
  const across = (v) => left + ((v - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
  const up = (v) => high - bottom - ((v - y[0]) / (y[1] - y[0] || 1)) * (high - top - bottom);
  for (const v of ticks(y[0], y[1], Math.max(2, (high - top - bottom) / 42))) {
    svg.append(s("line", { class: "grid", x1: left, x2: width - right, y1: up(v), y2: up(v) }));
    svg.append(s("text", { x: left - 7, y: up(v) + 4, "text-anchor": "end" }, yText(v)));
  }
  for (const v of xText ? ticks(x[0], x[1], Math.max(2, (width - left - right) / 95)) : []) {
    svg.append(s("text", { x: across(v), y: high - bottom + 16, "text-anchor": "middle" }, xText(v)));
  }
  if (xLabel) svg.append(s("text", { x: width - right, y: high - 3, "text-anchor": "end" }, xLabel));
  if (yLabel) svg.append(s("text", { x: 2, y: 11 }, yLabel));
  return { across, up };
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

// -- the network layer by layer ------------------------------------------------------------------

// Bars from the first layer to the last: behind, what was; in front, what is, in the colour of the price. Where there are
// more layers than room, a bar is the mean of neighbours.
function silhouette(layers, scale, pick) {
  const most = widest(layers);
  return chart(`Widths of ${layers.length} layers, before and after`, 190, (svg, width, high) => {
    const { up } = plane(svg, { width, high, top: 22, bottom: 20, x: [0, 1], y: [0, most], yText: amount, yLabel: "channels" });
    const left = 56;
    const room = width - left - 14;
    const shown = Math.min(layers.length, Math.floor(room / 3));
    const step = room / shown;
    const parts = Array.from({ length: shown }, (_, i) =>
      layers.slice(Math.floor((i * layers.length) / shown), Math.floor(((i + 1) * layers.length) / shown)));
    const mean = (part, value) => sum(part.map(value)) / part.length;
    const thick = Math.max(1, Math.min(step - (step > 4 ? 2 : 0.5), 46));
    parts.forEach((part, i) => {
      const out = [0, 1].map((when) => mean(part, (layer) => layer.out[when]));
      const at = { x: left + i * step + (step - thick) / 2, width: thick };
      const bar = (kind, wide) => s("rect", { ...at, class: kind, y: up(Math.min(wide, most)), height: up(0) - up(Math.min(wide, most)) });
      svg.append(bar("ghost", out[0]), bar(`fill ${scale.kind(mean(part, scale.price))}`, out[1]));
      if (Math.max(...out) > most) svg.append(s("path", { class: "cut", d: `M${at.x - 1} 36l${thick + 2} -6` }));
      if (out[1] > out[0]) svg.append(s("path", { class: "rim", d: `M${at.x} ${up(out[0])}h${thick}` }));
    });
    svg.append(s("text", { x: left, y: high - 4 }, "input"));
    svg.append(s("text", { x: width - 14, y: high - 4, "text-anchor": "end" }, "output"));
    const cursor = svg.appendChild(s("line", { class: "aim", y1: 18, y2: high - 20, visibility: "hidden" }));
    const nearest = (event) => {
      const i = Math.floor((event.clientX - svg.getBoundingClientRect().left - left) / step);
      return i >= 0 && i < shown ? i : null;
    };
    svg.addEventListener("pointermove", (event) => {
      const i = nearest(event);
      cursor.setAttribute("visibility", i === null ? "hidden" : "visible");
      if (i === null) return untip();
      cursor.setAttribute("x1", left + (i + 0.5) * step);
      cursor.setAttribute("x2", left + (i + 0.5) * step);
      const [layer] = parts[i];
      if (parts[i].length === 1) return tip(event, tail(layerName(layer), 60), `${layer.op} ${tail(layer.name, 50)}: ${widths(layer.out)} channels`, ...scale.lines(layer));
      const [was, is] = [0, 1].map((when) => amount(mean(parts[i], (each) => each.out[when])));
      tip(event, `${plural(parts[i].length, "layer")} from ${tail(layerName(layer), 50)}`, `${was} → ${is} channels on average`);
    });
    svg.addEventListener("pointerleave", () => { untip(); cursor.setAttribute("visibility", "hidden"); });
    svg.addEventListener("click", (event) => { const i = nearest(event); if (i !== null) pick(layers.indexOf(parts[i][0])); });
  });
}

// The scale of bars: the widest layer that can change. Classifiers and vocabularies would dwarf all others, and are cut off.
const widest = (layers) => {
  const free = layers.filter((layer) => layer.groups.length);
  return Math.max(1, ...(free.length ? free : layers).map((layer) => Math.max(...layer.out)));
};

// As groups are called: by the weight, for exporters number their nodes.
const layerName = (layer) => layer.weight.replace(/\.weight$/, "");

const widths = ([before, after]) => (before === after ? whole(before) : `${whole(before)} → ${whole(after)}`);

// -- shares --------------------------------------------------------------------------------------

// Two bars on one scale, before and after; parts: {name, before, after}, largest first.
function stack(label, every, cost) {
  const parts = every.filter((part) => part.before || part.after);
  const shown = parts.slice(0, 6);
  const rest = parts.slice(6);
  if (rest.length) shown.push({ name: `${rest.length} more`, before: sum(rest.map((p) => p.before)), after: sum(rest.map((p) => p.after)) });
  const most = Math.max(...["before", "after"].map((when) => sum(parts.map((p) => p[when])))) || 1;
  const kind = (i) => (i < 6 ? `s${i}` : "none");
  const drawing = chart(label, 92, (svg, width) => {
    ["before", "after"].forEach((when, row) => {
      let x = 0;
      const room = width - 62;
      const y = row * 44;
      svg.append(s("text", { x: 0, y: y + 23 }, when));
      shown.forEach((part, i) => {
        const wide = (part[when] / most) * room;
        if (wide < 0.5) return;
        const g = svg.appendChild(s("g", { class: `stack ${kind(i)}` }, s("rect", { x: 58 + x, y, width: wide, height: 36 })));
        const text = percent(part[when], sum(parts.map((p) => p[when])));
        if (wide > 46) g.append(s("text", { class: "in", x: 58 + x + wide / 2, y: y + 22, "text-anchor": "middle" }, text));
        g.addEventListener("pointermove", (event) => tip(event, tail(part.name, 60), `${when}: ${quantity(cost, part[when])}, ${text}`));
        g.addEventListener("pointerleave", untip);
        x += wide;
      });
    });
  });
  const legend = h("div", { class: "legend" }, shown.map((part, i) => h("span", { class: kind(i) }, h("i"), tail(part.name, 34))));
  return h("div", null, legend, drawing);
}

// -- over training -------------------------------------------------------------------------------

// lines: {name, values, kind}. Values that are no number are gaps.
function lines(label, series, all, { yText, low = null, high: top = null, height = 190 }) {
  const finite = all.flatMap((line) => line.values).filter(Number.isFinite);
  const y = [low === null ? Math.min(...finite) : low, top === null ? Math.max(...finite) : top];
  if (y[0] === y[1]) y[1] += Math.abs(y[1]) || 1;
  const x = [series.steps[0], series.steps[series.steps.length - 1]];
  if (x[0] === x[1]) x[1] += 1;
  return chart(label, height, (svg, width, high) => {
    const { across, up } = plane(svg, { width, high, x, y, yText, xText: amount, xLabel: series.unit });
    for (const [at] of series.marks) svg.append(s("line", { class: "grid", x1: across(at), x2: across(at), y1: 14, y2: high - 34 }));
    for (const line of all) {
      let d = "";
      let pen = "M";
      line.values.forEach((v, i) => {
        if (!Number.isFinite(v)) { pen = "M"; return; }
        d += `${pen}${across(series.steps[i]).toFixed(1)} ${up(v).toFixed(1)}`;
        pen = "L";
      });
      svg.append(s("path", { class: `line ${line.kind}`, d }));
    }
    svg.addEventListener("pointermove", (event) => {
      const value = x[0] + ((event.clientX - svg.getBoundingClientRect().left - 56) / (width - 70)) * (x[1] - x[0]);
      const i = nearestStep(series.steps, value);
      tip(event, `${series.unit} ${amount(series.steps[i])}`, ...all.map((line) => `${line.name}: ${Number.isFinite(line.values[i]) ? yText(line.values[i]) : "–"}`));
    });
    svg.addEventListener("pointerleave", untip);
  });
}

const nearestStep = (steps, value) => steps.reduce((best, step, i) => (Math.abs(step - value) < Math.abs(steps[best] - value) ? i : best), 0);

// A row per group, a column per step: the width as a share of the widest that the group ever was. Where there are more
// groups than pixels, a row is the mean of several.
function heat(series) {
  const groups = series.widths;
  const last = series.steps.length;
  const shown = Math.min(groups.length, 520);
  const row = Math.max(1, Math.min(18, Math.floor(520 / groups.length)));
  const most = groups.map((group) => Math.max(1, ...group.changes.map(([, width]) => width || 0)));
  const first = (r) => Math.floor((r * groups.length) / shown);
  const at = (n, step) => groups[n].changes.findLast(([from]) => from <= step)[1];
  const mean = (r, step) => {
    let total = 0;
    for (let n = first(r); n < first(r + 1); n++) total += (at(n, step) || 0) / most[n];
    return total / (first(r + 1) - first(r));
  };
  const high = row * shown + 24;
  return chart("Width of every group over training", high, (svg, width) => {
    const left = 56;
    const room = width - left - 14;
    const colours = getComputedStyle(document.documentElement);
    const canvas = h("canvas", { width: room, height: row * shown, style: { "margin-left": `${left}px` }, role: "img",
      "aria-label": `Widths of ${groups.length} groups over ${last} steps` });
    const pen = canvas.getContext("2d");
    pen.fillStyle = colours.getPropertyValue("--ghost");
    pen.fillRect(0, 0, room, row * shown);
    pen.fillStyle = colours.getPropertyValue("--s0");
    for (let step = 0; step < last; step++) {
      const [x, end] = [step, step + 1].map((i) => Math.round((i / last) * room));
      for (let r = 0; r < shown; r++) {
        pen.globalAlpha = mean(r, step) ** 1.5;
        pen.fillRect(x, r * row, end - x, row - (row > 6 ? 1 : 0));
      }
    }
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const n = first(Math.min(shown - 1, Math.max(0, Math.floor((event.clientY - box.top) / row))));
      const step = Math.min(last - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * last)));
      const now = at(n, step);
      tip(event, tail(groups[n].id, 60), `${series.unit} ${amount(series.steps[step])}: ${now === null ? "not there" : plural(now, "channel")}`);
    });
    canvas.addEventListener("pointerleave", untip);
    svg.setAttribute("height", 24);
    svg.setAttribute("viewBox", `0 0 ${width} 24`);
    svg.append(s("text", { x: left, y: 16 }, amount(series.steps[0])), s("text", { x: width - 14, y: 16, "text-anchor": "end" }, `${amount(series.steps[last - 1])} ${series.unit}`));
    return h("div", null, canvas, svg);
  });
}
