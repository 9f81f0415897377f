// What the tabs show. Each view is made when it is first looked at.

const DASH = "–";
const GONE = "removed";

// At most six classes of prices, on a logarithmic scale over all that is shown; a class each where there are so few.
function priceScale(subjects, cost) {
  const price = (subject, group) => subject.groups[group].price?.[0][subject.priced.indexOf(cost)] ?? 0;
  const dearest = (subject, layer) => Math.max(0, ...layer.groups.map((g) => price(subject, g)));
  const all = subjects.filter((x) => x.layers).flatMap((x) => x.groups.map((_, g) => price(x, g))).filter((p) => p > 0);
  let from = [...new Set(all)].sort((a, b) => a - b);
  const each = from.length <= 6;
  if (!each) from = [0, 1, 2, 3, 4, 5].map((i) => from[0] * (from[from.length - 1] / from[0]) ** (i / 6));
  const class_ = (i) => `p${from.length > 1 ? Math.round((5 * i) / (from.length - 1)) : 2}`;
  const kind = (value) => (value > 0 ? class_(Math.max(0, from.findLastIndex((low) => value >= low * (1 - 1e-9)))) : "none");
  const legend = () => h("div", { class: "legend" }, `Price of one channel in ${costName(cost)}:`,
    from.map((low, i) => h("span", { class: class_(i) }, h("i"), each ? quantity(cost, low) : `from ${quantity(cost, Number(low.toPrecision(3)))}`)),
    h("span", { class: "none" }, h("i"), "stays"), h("span", null, h("i", { class: "hollow", style: { background: "var(--ghost)" } }), "before"));
  return { kind, price, dearest, legend };
}

const sides = (subjects, draw) => h("div", { class: "sides" }, subjects.map((subject) =>
  h("section", { class: "card", "aria-label": plain(subject.name) }, heading(subject), draw(subject))));

const heading = (subject) => h("header", null, h("h2", { class: `s${subject.number % 6}` }, h("i", { class: "dot" }), tail(subject.name, 60)), h("span", { class: "quiet" }, subject.kind));

const nothing = (text) => h("p", { class: "empty" }, text);

// -- the network ---------------------------------------------------------------------------------

function networkView(state) {
  const scale = priceScale(state.shown, state.cost);
  return sides(state.shown, (subject) => [
    h("p", { class: "facts quiet" }, [...subject.facts, ...channels(subject)].map(([key, text]) => h("span", null, `${plain(key)}: ${plain(text)}`))),
    tiles(subject, state.cost),
    subject.layers ? layersOf(subject, state.cost, scale) : groupsAlone(subject),
    (subject.notes || []).map((note) => h("p", { class: "quiet" }, `Note: ${plain(note)}.`)),
  ]);
}

function channels({ groups, changed }) {
  if (!groups?.length) return [];
  const [was, is] = ["before", "after"].map((when) => sum(groups.map((g) => g[when])));
  return [["channels that can go", changed ? widths([was, is]) : whole(was)], ["groups", whole(groups.length)]];
}

function tiles(subject, cost) {
  const { before, after } = subject.costs;
  const names = [...new Set([cost, "flops", "params", "peak_memory", "latency"])].filter((name) => (before || after || {})[name] !== undefined);
  const found = names.map((name) => tile(costName(name), before?.[name], after?.[name], (n) => quantity(name, n), name === cost));
  const metrics = subject.points.map((p) => p.metric).filter(Number.isFinite);
  if (metrics.length) found.push(h("div", { class: "tile" }, h("span", null, "best metric"), h("b", null, String(Number(Math.max(...metrics).toPrecision(4)))), h("span", null, plural(subject.points.length, "network"))));
  return h("div", { class: "tiles" }, found);
}

function tile(name, before, after, text, chosen = false) {
  const both = before !== undefined && after !== undefined;
  return h("div", { class: chosen ? "tile chosen" : "tile" }, h("span", null, name), h("b", null, text(after ?? before)),
    h("span", null, both ? (before === after ? "as before" : `${change(before, after)}, was ${text(before)}`) : before === undefined ? "after" : " "));
}

function layersOf(subject, cost, scale) {
  const at = subject.shared.indexOf(cost);
  const most = widest(subject.layers);
  const kind = (layer) => scale.kind(scale.dearest(subject, layer));
  const about = (layer) => [
    ...(layer.groups.length ? [`price of one channel: ${quantity(cost, scale.dearest(subject, layer))}`] : [`its channels stay: ${layer.stays || "no group"}`]),
    ...(at < 0 ? [] : [`${costName(cost)}: ${layer.costs.map((c) => quantity(cost, c[at])).join(" → ")}`]),
    ...layer.groups.slice(0, 3).map((g) => `group ${tail(subject.groups[g].id, 44)}`),
    ...(layer.gone ? ["removed with its branch"] : []),
  ];
  const columns = [
    { title: "layer", value: layerName, text: (l) => tail(layerName(l), 34), full: (l) => `${l.weight} in node ${l.name}`, width: "28%", about: "by its weight" },
    { title: "op", value: (l) => l.op, width: "12%" },
    { title: "channels", value: (l) => l.out[1], text: (l) => (l.gone ? GONE : widths(l.out)), number: true, width: "18%" },
    { title: "width", value: (l) => l.out[0], node: (l) => bars(l.out[0], l.out[1], most, kind(l)), number: true, width: "16%", about: "before, and after in the colour of the price; sorts by the width before" },
    { title: "price", value: (l) => scale.dearest(subject, l), text: (l) => (l.groups.length ? quantity(cost, scale.dearest(subject, l)) : "stays"), full: (l) => l.stays, number: true, width: "13%", about: `${costName(cost)} that go with one channel of its group; of several groups, the dearest` },
    ...(at < 0 ? [] : [{ title: costName(cost), value: (l) => l.costs[1][at], text: (l) => quantity(cost, l.costs[1][at]), number: true, width: "13%", about: "of the layer, after" }]),
  ];
  const rows = table({ label: "Layers", columns, rows: subject.layers, search: (l) => `${l.name} ${l.weight} ${l.op} ${l.groups.map((g) => subject.groups[g].id).join(" ")}`, least: "35rem" });
  return [scale.legend(), silhouette(subject.layers, { kind: scale.kind, price: (l) => scale.dearest(subject, l), lines: about }, rows.reveal), rows.node];
}

// A structure whose model is not at hand, and logs.
function groupsAlone(subject) {
  if (!subject.groups?.length) return nothing("There is no network here: the other tabs show what there is.");
  const most = Math.max(...subject.groups.map((g) => Math.max(g.before, g.after)));
  const columns = [
    { title: "group", value: (g) => g.id, text: (g) => tail(g.id, 40), full: (g) => g.id, width: "45%" },
    { title: "channels", value: (g) => g.after, text: (g) => (g.after ? widths([g.before, g.after]) : GONE), number: true, width: "20%" },
    { title: "width", value: (g) => g.before, node: (g) => bars(g.before, g.after, most, "s0"), number: true, width: "35%" },
  ];
  return [nothing("The model of this structure is not at hand, so that layers and prices are not known: give it on the command line too."), table({ label: "Groups", columns, rows: subject.groups, search: (g) => g.id, least: "26rem" }).node];
}

// -- side by side --------------------------------------------------------------------------------

function compareView(state) {
  const named = (subject) => ({ title: tail(subject.name, 22), about: plain(subject.name), number: true });
  const costs = [...new Set(state.shown.flatMap((x) => [...Object.keys(x.costs.before || {}), ...Object.keys(x.costs.after || {})]))].filter((n) => !n.startsWith("classic_"));
  const last = (subject, name) => (subject.costs.after || subject.costs.before || {})[name];
  const costTable = table({ label: "Costs", rows: costs, least: `${12 + 9 * state.shown.length}rem`, columns: [
    { title: "cost", value: (c) => c, text: costName, width: "10rem" },
    ...state.shown.map((x) => ({ ...named(x), value: (c) => last(x, c) ?? -1, text: (c) => {
      const was = x.costs.before?.[c];
      return last(x, c) === undefined ? DASH : `${quantity(c, last(x, c))}${was && x.changed ? ` (${percent(last(x, c), was)})` : ""}`;
    } })),
  ] });
  const ids = new Map();
  state.shown.forEach((x, i) => (x.groups || []).forEach((g) => { if (!ids.has(g.id)) ids.set(g.id, { id: g.id, of: [] }); ids.get(g.id).of[i] = g; }));
  const rows = [...ids.values()];
  const most = Math.max(1, ...rows.flatMap((row) => row.of.flatMap((g) => [g.before, g.after])));
  const widthTable = table({ label: "Widths of groups", rows, search: (row) => row.id, least: `${19 + 12 * state.shown.length}rem`, columns: [
    { title: "group", value: (row) => row.id, text: (row) => tail(row.id, 30), full: (row) => row.id, width: "17rem" },
    ...state.shown.flatMap((x, i) => [
      { ...named(x), value: (row) => row.of[i]?.after ?? -1, text: (row) => (row.of[i] ? widths([row.of[i].before, row.of[i].after]) : DASH) },
      { title: "", about: plain(x.name), number: true, value: (row) => row.of[i]?.after ?? -1, node: (row) => (row.of[i] ? bars(row.of[i].before, row.of[i].after, most, `s${x.number % 6}`) : DASH) },
    ]),
  ] });
  return h("section", { class: "card" }, costTable.node, rows.length ? widthTable.node : null);
}

// -- trade-offs ----------------------------------------------------------------------------------

function tradeView(state) {
  const points = state.shown.flatMap((x) => x.points.map((p) => ({ ...p, of: x })));
  const costs = [...new Set(points.flatMap((p) => Object.keys(p.costs)))];
  const rated = points.filter((p) => Number.isFinite(p.metric)).length;
  const metrics = rated > 0;
  const choices = [...(metrics ? ["metric"] : []), ...costs.filter((c) => c !== state.cost && !c.startsWith("classic_"))];
  const place = h("div");
  const choice = h("select", { "aria-label": "Plot against", on: { change: () => place.replaceChildren(tradeoff(state.shown, state.cost, choice.value)) } },
    choices.map((c) => h("option", { value: c }, c === "metric" ? c : costName(c))));
  if (!choices.length) return h("section", { class: "card" }, nothing("No network here has costs."));
  if (rated < 2 && choices.includes("params")) choice.value = "params";
  place.replaceChildren(tradeoff(state.shown, state.cost, choice.value));
  const columns = [
    { title: "network", value: (p) => p.name, text: (p) => tail(p.name, 44), full: (p) => p.name, width: "30%" },
    { title: "of", value: (p) => p.of.name, text: (p) => tail(p.of.name, 24), full: (p) => p.of.name },
    ...[...new Set([state.cost, "flops", "params"])].filter((c) => costs.includes(c)).map((c) => ({ title: costName(c), value: (p) => p.costs[c] ?? -1, text: (p) => quantity(c, p.costs[c]), number: true })),
    { title: "metric", value: (p) => p.metric ?? -Infinity, text: (p) => (p.metric === null ? DASH : String(Number(p.metric.toPrecision(4)))), number: true },
    { title: "best", value: (p) => Number(p.best), text: (p) => (p.best ? "●" : ""), number: true, width: "5rem", about: "no other network of its run costs as little, in all costs of the run's plan, and is as good" },
  ];
  const legend = h("div", { class: "legend" },
    state.shown.filter((x) => x.points.length).map((x) => h("span", { class: `s${x.number % 6}` }, h("i", { style: { "border-radius": "50%" } }), tail(x.name, 40))),
    h("span", null, h("i", { class: "dashed" }), "width multiplier"), h("span", null, "filled: no other in this plot is better in both"));
  const missing = points.length - rated;
  return h("section", { class: "card" },
    h("div", { class: "above" }, h("h3", null, "Networks that were visited"), h("label", { class: "quiet" }, "against ", choice)), legend, place,
    metrics && missing ? h("p", { class: "quiet" }, `${plural(missing, "network")} without a metric, in the table only.`) : null,
    metrics && !points.some((p) => p.multiplied && Number.isFinite(p.metric)) ? h("p", { class: "quiet" }, "The metric of the width multiplier was not measured here. Give a table of networks (CSV) to see its curve; the axis above shows what it costs.") : null,
    table({ label: "All networks", columns, rows: points, search: (p) => `${p.name} ${p.of.name}`, least: "40rem" }).node);
}

// -- shares of the cost --------------------------------------------------------------------------

function costsView(state) {
  const { cost } = state;
  return sides(state.shown, (subject) => {
    if (!subject.layers) return nothing("There is no network here whose ops could be counted.");
    const at = subject.shared.indexOf(cost);
    const priced = subject.priced.indexOf(cost);
    const shown = [];
    const byOp = subject.types.map((t) => ({ name: t.op, count: t.count, before: t.costs[0][at], after: t.costs[1][at] })).sort((a, b) => b.before - a.before);
    const share = (title, rows, first) => {
      const most = Math.max(1e-30, ...rows.map((r) => Math.max(r.before, r.after)));
      return table({ label: title, rows, by: 2, search: (r) => r.name, least: "33rem", columns: [...first,
        { title: "before", value: (r) => r.before, text: (r) => quantity(cost, r.before), number: true },
        { title: "after", value: (r) => r.after, text: (r) => quantity(cost, r.after), number: true },
        { title: "share", value: (r) => r.after, node: (r) => bars(r.before, r.after, most, "s0"), number: true, width: "28%", about: "before, and after" }] }).node;
    };
    if (at < 0) shown.push(nothing(`${costName(cost)} is no sum over ops: it has no shares by op.`));
    else shown.push(h("h3", null, `${costName(cost)} by op`), stack(`${costName(cost)} by op`, byOp, cost), share("Ops", byOp, [
      { title: "op", value: (r) => r.name, text: (r) => tail(r.name, 26), full: (r) => r.name, width: "24%" },
      { title: "count", value: (r) => r.count[1], text: (r) => widths(r.count), number: true, width: "14%" }]));
    if (priced >= 0 && subject.groups.length) {
      const byGroup = subject.groups.map((g) => ({ name: g.id, count: [g.before, g.after], axes: g.axes, before: g.before * g.price[0][priced], after: g.after * g.price[1][priced] })).sort((a, b) => b.before - a.before);
      shown.push(h("h3", null, `${costName(cost)} by group`), h("p", { class: "quiet" }, "What would go if all channels of the group went: an op between two groups counts in both."),
        stack(`${costName(cost)} by group`, byGroup, cost), share("Groups", byGroup, [
          { title: "group", value: (r) => r.name, text: (r) => tail(r.name, 26), full: (r) => r.name, width: "26%" },
          { title: "channels", value: (r) => r.count[1], text: (r) => widths(r.count), number: true, width: "16%" }]));
    }
    return shown;
  });
}

// -- training ------------------------------------------------------------------------------------

function trainingView(state) {
  const text = (v) => String(Number(v.toPrecision(3)));
  return sides(state.shown, (subject) => {
    const { series } = subject;
    if (!series) return nothing("Nothing was logged here. Write a log with CsvLog while you train, and give it after the structure.");
    const shown = [];
    if (series.strength) shown.push(h("h3", null, "Strength λ of the penalty"), lines("Strength of the penalty over training", series, [{ name: "λ", values: series.strength, kind: "s3" }], { yText: text, low: 0 }));
    const costs = Object.entries(series.costs).filter(([name, values]) => !name.startsWith("classic_") && values[0] > 0);
    const kept = costs.filter(([name]) => ["flops", "params", "peak_memory", "latency"].includes(name));
    const drawn = (kept.length ? kept : costs.slice(0, 6)).map(([name, values], i) => ({ name: costName(name), values: values.map((v) => v / values[0]), kind: `s${i % 6}` }));
    if (drawn.length) {
      shown.push(h("h3", null, "Costs, as shares of the first"), h("div", { class: "legend" }, drawn.map((line) => h("span", { class: line.kind }, h("i"), line.name))),
        lines("Costs over training", series, drawn, { yText: (v) => percent(v, 1), low: 0 }));
    }
    if (series.widths.length) shown.push(h("h3", null, "Widths"), h("p", { class: "quiet" }, "A row per group, in the order of the network; darker is wider, as a share of the group's widest."), heat(series));
    if (series.marks.length) shown.push(h("p", { class: "quiet" }, `Marks: ${series.marks.map(([at, name]) => `${plain(name)} at ${amount(at)}`).join("; ")}.`));
    return shown;
  });
}

// -- what stays, what went -----------------------------------------------------------------------

function fixedView(state) {
  return sides(state.shown, (subject) => {
    if (!subject.fixed) return nothing("There is no network here.");
    if (!subject.fixed.length) return nothing("No axis of a parameter stays: every channel may go.");
    const codes = new Map();
    for (const [code, , , positions] of subject.fixed) { const seen = codes.get(code) || { code, axes: 0, positions: 0 }; seen.axes += 1; seen.positions += positions; codes.set(code, seen); }
    const rows = [...codes.values()];
    const most = Math.max(...rows.map((r) => r.axes));
    return [
      h("p", null, `${plural(subject.fixed.length, "axis", "axes")} of parameters stay, wholly or in part; ${percent(subject.removable, 1)} of the parameters lie in a slice that can go.`),
      table({ label: "Why", rows, by: 1, least: "24rem", columns: [
        { title: "reason", value: (r) => r.code, width: "34%" },
        { title: "axes", value: (r) => r.axes, text: (r) => whole(r.axes), number: true, width: "18%" },
        { title: "positions", value: (r) => r.positions, text: (r) => whole(r.positions), number: true, width: "24%" },
        { title: "", value: (r) => r.axes, node: (r) => bars(0, r.axes, most, "none"), number: true }] }).node,
      table({ label: "Axes that stay", rows: subject.fixed, search: ([code, tensor, , , why]) => `${code} ${tensor} ${subject.reasons[why]}`, least: "36rem", columns: [
        { title: "tensor", value: (r) => r[1], text: (r) => tail(r[1], 34), full: (r) => r[1], width: "28%" },
        { title: "axis", value: (r) => r[2], number: true, width: "9%" },
        { title: "positions", value: (r) => r[3], text: (r) => whole(r[3]), number: true, width: "14%" },
        { title: "reason", value: (r) => r[0], width: "16%" },
        { title: "why", value: (r) => subject.reasons[r[4]], width: "33%" }] }).node,
    ];
  });
}

function removedView(state) {
  return sides(state.shown, (subject) => {
    const groups = (subject.groups || []).filter((g) => g.before && !g.after);
    if (!groups.length) return nothing("Nothing went as a whole: all groups have channels left, and the topology is as it was.");
    const nodes = subject.removed || [];
    return [
      h("p", null, `${plural(groups.length, "group")} went as a whole${subject.removed ? `, and ${plural(nodes.length, "node")} with ${groups.length === 1 ? "it" : "them"}` : ""}.`),
      table({ label: "Groups that went", rows: groups, search: (g) => g.id, least: "20rem", columns: [
        { title: "group", value: (g) => g.id, text: (g) => tail(g.id, 50), full: (g) => g.id, width: "75%" },
        { title: "channels", value: (g) => g.before, text: (g) => whole(g.before), number: true }] }).node,
      nodes.length ? table({ label: "Nodes that went", rows: nodes, search: (n) => `${n.name} ${n.op}`, least: "40rem", columns: [
        { title: "node", value: (n) => n.name, text: (n) => tail(n.name, 36), full: (n) => n.name, width: "32%" },
        { title: "op", value: (n) => n.op, width: "16%" },
        { title: "why", value: (n) => state.why[n.why], width: "28%" },
        { title: "because of", value: (n) => n.groups.join(", "), text: (n) => tail(n.groups.join(", "), 30), full: (n) => n.groups.join(", ") }] }).node : null,
    ];
  });
}
