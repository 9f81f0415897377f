// The plot of trade-offs: all networks that were visited, and the curve of the width multiplier.

// What no other dominates in these two numbers, as points of a line; `y` is better where it is larger if `up`.
function front(points, up) {
  const better = (a, b) => (up ? a > b : a < b);
  const sorted = points.toSorted((a, b) => a.x - b.x || (up ? b.y - a.y : a.y - b.y));
  const found = [];
  for (const point of sorted) if (!found.length || better(point.y, found[found.length - 1].y)) found.push(point);
  return found;
}

// Networks of the width multiplier that were measured: those of one cost, as seeds are, by their mean.
function measured(points) {
  const same = new Map();
  for (const { x, y } of points) same.set(x, [...(same.get(x) || []), y]);
  return [...same].map(([x, ys]) => [x, sum(ys) / ys.length]).sort((a, b) => a[0] - b[0]);
}

function tradeoff(subjects, cost, against) {
  const up = against === "metric";
  const points = subjects.flatMap((subject) => subject.points
    .map((p) => ({ ...p, kind: `s${subject.number % 6}`, of: subject.name, x: p.costs[cost], y: up ? p.metric : p.costs[against] }))
    .filter((p) => Number.isFinite(p.x) && Number.isFinite(p.y)));
  const curves = subjects.filter((subject) => subject.curve && subject.curve.costs[cost]);
  const model = curves[0];
  const multiplied = points.filter((p) => p.multiplied);
  let curve = up ? measured(multiplied) : [];
  if (!up && model && model.curve.costs[against]) curve = model.curve.costs[cost].map((x, i) => [x, model.curve.costs[against][i]]);
  const every = [...points.map((p) => [p.x, p.y]), ...curve];
  if (!every.length) return h("p", { class: "empty" }, up ? "No network here has a metric: choose a cost to plot against." : "No network here has these costs.");
  const xs = every.map(([x]) => x);
  const ys = every.map(([, y]) => y);
  const margin = (Math.max(...ys) - Math.min(...ys)) * 0.08 || Math.abs(ys[0]) * 0.05 || 1;
  const x = [0, Math.max(...xs) * 1.05 || 1];
  const y = up ? [Math.min(...ys) - margin, Math.max(...ys) + margin] : [0, Math.max(...ys) * 1.08 || 1];
  const yText = up ? (v) => String(Number(v.toPrecision(4))) : (v) => quantity(against, v);
  const label = `${up ? "Metric" : costName(against)} over ${costName(cost)} of ${points.length} networks, with the width multiplier`;
  return chart(label, 400, (svg, width, high) => {
    const { across, up: rise } = plane(svg, { width, high, left: 66, top: 46, x, y, xText: (v) => quantity(cost, v), yText, xLabel: costName(cost) });
    svg.append(s("text", { x: 2, y: 38 }, up ? "metric" : costName(against)));
    if (model) axisOfMultipliers(svg, model.curve, cost, across, x[1]);
    if (curve.length) svg.append(s("path", { class: "multiplier", d: path(curve.map(([a, b]) => [across(a), rise(b)])) }));
    const best = front(points.filter((p) => !p.multiplied), up);
    const steps = best.flatMap((p, i) => (i ? [[p.x, best[i - 1].y], [p.x, p.y]] : [[p.x, p.y]]));
    if (best.length > 1) svg.append(s("path", { class: "front", d: path(steps.map(([a, b]) => [across(a), rise(b)])) }));
    const marks = points.map((p) => {
      const at = { cx: across(p.x), cy: rise(p.y), r: best.includes(p) ? 6 : 4.5 };
      const kind = p.multiplied ? "none" : p.kind;
      return svg.appendChild(s("circle", { ...at, class: `mark ${kind}${best.includes(p) ? "" : " open"}` }));
    });
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      let near = null;
      let least = 24;
      marks.forEach((mark, i) => {
        const d = Math.hypot(mark.getAttribute("cx") - event.clientX + box.left, mark.getAttribute("cy") - event.clientY + box.top);
        if (d < least) [near, least] = [points[i], d];
      });
      if (!near) return untip();
      const more = near.metric === null ? [] : [`metric: ${Number(near.metric.toPrecision(4))}`];
      tip(event, `${tail(near.of, 40)}: ${tail(near.name, 40)}`, `${costName(cost)}: ${quantity(cost, near.x)}`, ...more, ...(up ? [] : [`${costName(against)}: ${quantity(against, near.y)}`]));
    });
    svg.addEventListener("pointerleave", untip);
  });
}

const LABELLED = [1, 0.5, 0.75, 0.25, 0.1, 0.9, 2, 1.5, 1.25]; // those first that matter most, where room is scarce

// Above the plane: how wide the whole network would be, multiplied by one number, at the same cost.
function axisOfMultipliers(svg, curve, cost, across, most) {
  svg.append(s("text", { x: 2, y: 12 }, "width multiplier at that cost"));
  const taken = [];
  for (const omega of LABELLED) {
    const value = curve.costs[cost][curve.omega.indexOf(omega)];
    const at = across(value);
    if (!(value <= most) || taken.some((other) => Math.abs(at - other) < 34)) continue;
    taken.push(at);
    svg.append(s("line", { class: "grid", x1: at, x2: at, y1: 32, y2: 46 }));
    svg.append(s("text", { x: at, y: 28, "text-anchor": "middle" }, `×${omega}`));
  }
}
