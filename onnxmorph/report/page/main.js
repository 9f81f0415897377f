// The page: which subjects, which cost, which tab, which colours.

const report = JSON.parse(document.getElementById("data").textContent);
report.subjects.forEach((subject, number) => { subject.number = number; });

const MOST = 3; // subjects that are shown at first
const TABS = [
  ["network", "Network", networkView],
  ["compare", "Side by side", compareView],
  ["trade", "Trade-offs", tradeView],
  ["costs", "Costs", costsView],
  ["training", "Training", trainingView],
  ["fixed", "What stays", fixedView],
  ["removed", "What went", removedView],
].filter(([id]) => id !== "compare" || report.subjects.length > 1);

const state = { shown: report.subjects.slice(0, MOST), cost: report.cost, why: report.why, tab: TABS[0][0] };
const made = new Map(); // the views that were looked at, until something else is shown

function show(id, focus = false) {
  state.tab = id;
  untip();
  const [, title, view] = TABS.find(([each]) => each === id);
  if (!made.has(id)) made.set(id, state.shown.length ? view(state) : nothing("Choose above what to show."));
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${id}`;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen && focus) tab.focus();
  }
  const panel = document.getElementById("panel");
  panel.replaceChildren(made.get(id));
  panel.setAttribute("aria-labelledby", `tab-${id}`);
  panel.setAttribute("aria-label", title);
}

function again() {
  made.clear();
  show(state.tab);
}

function tabs() {
  const bar = document.getElementById("tabs");
  bar.append(...TABS.map(([id, title]) => h("button", { type: "button", role: "tab", id: `tab-${id}`, "aria-controls": "panel", on: { click: () => show(id) } }, title)));
  bar.addEventListener("keydown", (event) => {
    const at = TABS.findIndex(([id]) => id === state.tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + TABS.length, Home: 0, End: TABS.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(TABS[to % TABS.length][0], true);
  });
}

function chips() {
  if (report.subjects.length < 2) return;
  const bar = document.getElementById("subjects");
  report.subjects.forEach((subject) => {
    const chip = h("button", { type: "button", class: `chip s${subject.number % 6}`, "aria-pressed": state.shown.includes(subject), on: { click: () => {
      state.shown = report.subjects.filter((each) => (each === subject ? !state.shown.includes(each) : state.shown.includes(each)));
      chip.setAttribute("aria-pressed", state.shown.includes(subject));
      again();
    } } }, h("i", { class: "dot" }), tail(subject.name, 50));
    bar.append(chip);
  });
}

function controls() {
  const costs = [...new Set(report.subjects.flatMap((x) => x.priced.length ? x.priced : Object.keys(x.costs.before || {})))].filter((c) => !c.startsWith("classic_"));
  const choice = h("select", { "aria-label": "Cost", on: { change: () => { state.cost = choice.value; again(); } } }, costs.map((c) => h("option", { value: c }, costName(c))));
  if (!costs.includes(state.cost) && costs.length) [state.cost] = costs;
  choice.value = state.cost;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = (theme) => { document.documentElement.dataset.theme = theme; again(); };
  dark.addEventListener("change", () => set(dark.matches ? "dark" : "light"));
  document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
  const other = () => (document.documentElement.dataset.theme === "dark" ? "light" : "dark");
  document.getElementById("controls").append(
    costs.length ? h("label", { class: "quiet" }, "cost ", choice) : "",
    h("button", { type: "button", on: { click: () => set(other()) } }, "Light / dark"));
}

controls();
chips();
tabs();
show(state.tab);
