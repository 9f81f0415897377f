// Tables that can be sorted and searched. Only the rows in view are in the document: a thousand cost what thirty do.

const ROW = 30; // pixels, as in the style sheet
const BEYOND = 10; // rows above and below those in view
const collator = new Intl.Collator("en", { numeric: true });

// columns: {title, value(row), text(row) or node(row), number, width, about}; the least width of all is `least`.
// shown(row) gets each row once it is drawn; reveal(index) of the result scrolls to a row and marks it.
function table({ label, columns, rows, by = null, descending = true, search = null, least = "30rem" }) {
  let order = rows.map((_, i) => i);
  let picked = -1;
  let sorted = by;
  let down = descending;
  const body = h("tbody");
  const count = h("span", { class: "quiet", role: "status" });
  const heads = columns.map((column, i) =>
    h("th", { scope: "col", class: column.number && !column.node ? "number" : null, title: column.about },
      h("button", { type: "button", on: { click: () => sort(i) } }, column.title)));
  const grid = h("table", { "aria-label": label, "aria-rowcount": rows.length + 1, style: { "min-width": least } },
    h("colgroup", null, columns.map((c) => h("col", { style: c.width ? { width: c.width } : {} }))),
    h("thead", null, h("tr", { "aria-rowindex": 1 }, heads)), body);
  const scroller = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label, on: { scroll: draw } }, grid);
  const field = search && rows.length > 8
    ? h("input", { type: "search", placeholder: "Filter by name …", "aria-label": `Filter: ${label}`, on: { input: filter } })
    : null;

  function cell(column, row) {
    const content = column.node ? column.node(row) : plain(column.text ? column.text(row) : column.value(row));
    const full = typeof content === "string" ? (column.full ? plain(column.full(row)) : content) : null;
    return h("td", { class: column.number ? "number" : null, title: full }, content);
  }

  function draw() {
    const high = scroller.clientHeight || 480;
    const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - BEYOND);
    const last = Math.min(order.length, first + Math.ceil(high / ROW) + 2 * BEYOND);
    const space = (n) => h("tr", { class: "space", "aria-hidden": "true" }, h("td", { colspan: columns.length, style: { height: `${n * ROW}px` } }));
    const drawn = order.slice(first, last).map((i, n) =>
      h("tr", { "aria-rowindex": first + n + 2, class: i === picked ? "picked" : null }, columns.map((c) => cell(c, rows[i]))));
    body.replaceChildren(...(first ? [space(first)] : []), ...drawn, ...(last < order.length ? [space(order.length - last)] : []));
  }

  function arrange() {
    if (sorted !== null) {
      const value = columns[sorted].value;
      const compare = columns[sorted].number ? (a, b) => a - b : (a, b) => collator.compare(a, b);
      order.sort((i, j) => (down ? -1 : 1) * compare(value(rows[i]), value(rows[j])) || i - j);
    } else order.sort((i, j) => i - j);
    heads.forEach((head, i) => {
      if (i === sorted) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    draw();
  }

  function sort(i) {
    const first = Boolean(columns[i].number); // numbers begin with the largest, names with A
    if (sorted !== i) [sorted, down] = [i, first];
    else if (down === first) down = !first;
    else sorted = null; // the order of the file again
    scroller.scrollTop = 0;
    arrange();
  }

  function filter() {
    const wanted = field.value.toLowerCase();
    order = rows.map((_, i) => i).filter((i) => search(rows[i]).toLowerCase().includes(wanted));
    count.textContent = wanted ? `${whole(order.length)} of ${whole(rows.length)}` : "";
    scroller.scrollTop = 0;
    arrange();
  }

  function reveal(i) {
    picked = i;
    if (!order.includes(i) && field) { field.value = ""; filter(); }
    scroller.scrollTop = Math.max(0, order.indexOf(i) * ROW - scroller.clientHeight / 2);
    draw();
  }

  arrange();
  const above = h("div", { class: "above" }, h("h3", null, label), h("div", null, count, " ", field));
  return { node: h("div", null, above, scroller), reveal };
}

// Before and after as bars on one scale; `kind` is the class that colours what is.
const bars = (before, after, most, kind) => {
  const share = (n) => `${Math.min(100, (100 * n) / (most || 1))}%`;
  return h("div", { class: `bar ${kind}` },
    h("i", { class: "was", style: { width: share(before) } }),
    h("i", { class: "is", style: { width: share(after) } }));
};
