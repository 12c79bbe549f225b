"use strict";
const plots = JSON.parse(document.getElementById("plots").textContent);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const hidden = new Set(); // numbers of runs whose lines are switched off

// ---- plots: drawn anew from their data, what is chosen, the runs switched off, and the colours of the page
const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const touch = matchMedia("(pointer: coarse)").matches; // there a finger on a plot scrolls the page

function draw(div) {
  const spec = plots[div.dataset.plot];
  let layout = { ...spec.layout };
  let data = spec.data;
  const choices = all("select", div.closest("figure"));
  choices.forEach((select, i) => {
    const option = spec.choices[i].options[select.value];
    data = data.map((trace, k) => ({ ...trace, ...option.data?.[k] }));
    for (const [key, value] of Object.entries(option.layout ?? {})) layout[key] = { ...layout[key], ...value };
  });
  data = data.map(trace => {
    if (trace.type === "parcoords") return { ...trace, line: { ...trace.line, colorscale: [[0, colour("--c0")], [1, colour("--c1")]] } };
    const paint = colour(`--c${trace.meta % 10}`);
    return { ...trace, line: { ...trace.line, color: paint }, marker: { color: paint, size: 7 }, visible: !(spec.of_several_runs && hidden.has(trace.meta)) };
  });
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"), automargin: true, exponentformat: "power" };
  const hover = { bgcolor: colour("--raised"), bordercolor: colour("--line"), font: { color: colour("--text") }, namelength: -1 };
  layout = {
    showlegend: false,
    legend: { orientation: "h", y: -0.25, yanchor: "top", font: { size: 11 } },
    margin: data[0]?.type === "parcoords" ? { l: 60, r: 60, t: 70, b: 20 } : { l: 48, r: 8, t: 8, b: 36 },
    dragmode: touch ? false : "zoom",
    uirevision: choices.map(select => select.value).join(), // a zoom stays until something else is chosen
    ...layout,
    xaxis: { ...axis, ...layout.xaxis, title: { text: layout.xaxis?.title, standoff: 6 } },
    yaxis: { ...axis, ...layout.yaxis, title: { text: layout.yaxis?.title, standoff: 6 } },
    hoverlabel: hover,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--text"), family: "system-ui, sans-serif", size: 12 },
  };
  const buttons = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"];
  return Plotly.react(div, data, layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: buttons, displayModeBar: touch ? false : "hover" });
}

const drawAll = () => all(".plot").forEach(draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
all("figure select").forEach(select => select.addEventListener("change", () => draw(select.closest("figure").querySelector(".plot"))));

// ---- legend
const keys = all(".legend [data-run]");
function show(run, shown) {
  shown ? hidden.delete(run) : hidden.add(run);
  keys[run].setAttribute("aria-pressed", shown);
}
keys.forEach((key, run) => key.addEventListener("click", () => { show(run, hidden.has(run)); drawAll(); }));
all(".legend [data-all]").forEach(button =>
  button.addEventListener("click", () => { keys.forEach((_, run) => show(run, button.dataset.all === "on")); drawAll(); }));

// ---- sample grids: a slider over steps
all(".slider").forEach(slider => {
  const input = slider.querySelector("input");
  const sheets = all(".pair", slider.parentElement);
  input.addEventListener("input", () => {
    sheets.forEach((sheet, i) => (sheet.hidden = i !== +input.value));
    slider.querySelector("output").textContent = sheets[input.value].dataset.step;
  });
});

// ---- the run whose samples and setup are shown
const pickers = all("select.run");
pickers.forEach(picker => picker.addEventListener("change", () => {
  pickers.forEach(other => (other.value = picker.value));
  all(".of-run").forEach(part => (part.hidden = part.dataset.run !== picker.value));
}));

// ---- tables: sorted by the column that is clicked, empty cells last
all("th button").forEach(button => button.addEventListener("click", () => {
  const th = button.parentElement;
  const body = th.closest("table").tBodies[0];
  const sign = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  all("[aria-sort]", th.closest("thead")).forEach(other => other.removeAttribute("aria-sort"));
  th.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const value = row => row.cells[th.cellIndex].dataset.value ?? "";
  const compare = (a, b) => a === "" || b === "" ? (a === "") - (b === "") : sign * (a - b || a.localeCompare(b, "en", { numeric: true }));
  body.append(...[...body.rows].sort((a, b) => compare(value(a), value(b))));
}));

// ---- provenance: by hovering, by keyboard focus, by a tap
const tip = document.getElementById("tip");
let tipped = null;
function showTip(cell) {
  tipped = cell;
  tip.hidden = !cell;
  if (!cell) return;
  tip.replaceChildren(document.getElementById(cell.dataset.tip).content.cloneNode(true));
  placeTip();
}
function placeTip() {
  const at = tipped.getBoundingClientRect();
  const below = at.bottom + tip.offsetHeight + 8 < innerHeight || at.top < tip.offsetHeight + 8;
  tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? Math.min(at.bottom + 4, innerHeight - tip.offsetHeight - 8) : at.top - tip.offsetHeight - 4}px`;
}
for (const event of ["pointerover", "focusin", "click"])
  document.addEventListener(event, ({ target }) => target.closest?.("#tip") || showTip(target.closest?.("[data-tip]")));
document.addEventListener("keydown", ({ key }) => key === "Escape" && showTip(null));
document.addEventListener("scroll", ({ target }) => {
  if (!tipped || target === tip) return;
  const { top, bottom } = tipped.getBoundingClientRect(); // keyboard focus scrolls to what it shows
  bottom > 0 && top < innerHeight ? placeTip() : showTip(null);
}, { capture: true, passive: true });

drawAll();
