// The panel of one run: what it was, what came of it. All texts enter as text, none as HTML.
const dialog = document.getElementById("run");
const COSTS = [
  ["seconds", "seconds in all", formatDuration], ["training_seconds", "training", formatDuration],
  ["evaluation_seconds", "evaluation", formatDuration], ["simulation_evaluations", "network evaluations: simulation", count],
  ["optimisation_evaluations", "network evaluations: optimisation", count], ["network_parameters", "parameters", count],
  ["peak_memory_bytes", "peak memory", (value) => formatNumber(value / 2 ** 20) + " MiB"], ["host", "host", String],
  ["device", "device", String], ["launcher", "launcher", String], ["num_workers", "workers", String],
  ["commit", "commit", String], ["attempt", "attempt", String], ["optuna_numbers", "Optuna trials", (value) => value.join(", ")],
];

function count(value) {
  return value.toLocaleString("en-US");
}

function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties || {});
  element.append(...children.filter((child) => child !== null));
  return element;
}

const levelText = (value) => (value === undefined || value === null ? ABSENT : typeof value === "object" ? JSON.stringify(value) : String(value));

// A run by its name, or the first of a setting by its digest.
function findRun(name) {
  const runs = known().runs;
  return runs.find((run) => run.run === name) || runs.find((run) => run.digest === name || run.digest + "-" + run.seed === name);
}

function openRun(name) {
  const run = findRun(name);
  dialog.replaceChildren(...(run ? runContent(run) : [head("No such run"), make("p", { textContent: "This report has no run “" + name + "”." })]));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  if (!run) return;
  history.replaceState(null, "", "#run=" + encodeURIComponent(run.run));
  drawCurves(run);
  drawPath(run);
}

function head(title) {
  const close = make("button", { type: "button", className: "close", ariaLabel: "Close", textContent: "Close" });
  close.addEventListener("click", () => dialog.close());
  return make("div", { className: "run-head" }, make("h2", { id: "run-title", textContent: title }), close);
}

function runContent(run) {
  const setting = known().settings[run.digest];
  return [
    head(setting.name + ", seed " + run.seed),
    make("p", { className: "run-line" }, make("span", { className: "status " + run.status, textContent: run.status }),
      " " + Object.entries(setting.facets).map(([name, value]) => name + ": " + value).join(" · ") + " · phase: " + run.phase),
    siblings(run),
    run.error ? make("pre", { className: "error", textContent: run.error }) : null,
    ...configuration(run, setting), ...numbers(run), ...pictures(run),
    run.curves ? make("h3", { textContent: "Learning curves" }) : null,
    run.curves ? make("div", { id: "run-curves", className: "run-plot" }) : null,
    run.path ? make("h3", { textContent: "Learned path, the original dashed" }) : null,
    run.path ? make("div", { id: "run-path", className: "run-plot" }) : null,
    make("h3", { textContent: "Cost and place" }), costs(run),
  ].filter((child) => child !== null);
}

// The other seeds of the setting, and the same in the other phase.
function siblings(run) {
  const others = known().runs.filter((other) => other.digest === run.digest);
  if (others.length < 2) return null;
  return make("p", { className: "siblings" }, "Runs of this setting: ", ...others.map((other) => {
    const button = make("button", { type: "button", textContent: "seed " + other.seed + (other.phase === "ablation" ? "" : ", " + other.phase) });
    if (other === run) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => openRun(other.run));
    return button;
  }));
}

function grid(heads, rows, numeric) {
  const cell = (kind, text, i) => make(kind, { textContent: text, className: numeric && i > 0 ? "numeric" : "" });
  return make("div", { className: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((text, i) => cell("th", text, i)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((text, i) => cell("td", text, i)))))));
}

const fold = (title, content) => make("details", { className: "configuration" }, make("summary", { textContent: title }), content);

function configuration(run, setting) {
  const centre = known().centres[setting.place], changed = Object.entries(setting.changed), absent = new Set(setting.absent || []);
  const hasCentre = Object.keys(centre).length > 0;
  const rows = changed.filter(([path]) => path in centre || hasCentre).map(([path, value]) => [path, levelText(centre[path]), levelText(value)]);
  const lacking = Array.from(absent).map((path) => [path, levelText(centre[path])]);
  const whole = { ...Object.fromEntries(Object.entries(centre).filter(([path]) => !absent.has(path))), ...setting.changed };
  const every = Object.keys(whole).sort().filter((path) => whole[path] !== null).map((path) => [path, levelText(whole[path])]);
  const folded = fold("Whole configuration (" + every.length + " values)", grid(["value", "this run"], every));
  const first = !hasCentre ? make("p", { textContent: "The study has no centre yet." })
    : rows.length ? grid(["value", "centre", "this run"], rows) : make("p", { textContent: absent.size ? "It has no value of its own." : "This is the centre: nothing differs." });
  const without = lacking.length ? fold("Values of the centre that it does not have (" + lacking.length + ")", grid(["value", "centre"], lacking)) : null;
  return [make("h3", { textContent: "What differs from the centre" }), first, without, folded];
}

function numbers(run) {
  if (!run.numbers) return [make("h3", { textContent: "Numbers" }), make("p", { textContent: "This run left no number." })];
  const byMetric = new Map();
  run.numbers.forEach(([metric, split, calls, value]) => {
    const key = metric + (calls ? ", NFE " + calls : "");
    if (!byMetric.has(key)) byMetric.set(key, {});
    byMetric.get(key)[split || "test"] = value;
  });
  const splits = ["test", "validation"].filter((split) => Array.from(byMetric.values()).some((row) => split in row));
  const rows = Array.from(byMetric, ([name, row]) => [name, ...splits.map((split) => (split in row ? formatNumber(row[split], 4) : ABSENT))]);
  return [make("h3", { textContent: "Numbers" }), grid(["metric", ...splits], rows, true)];
}

function pictures(run) {
  const strips = all("main .strip").filter((strip) => strip.dataset.run === run.run).map((strip) => strip.cloneNode(true));
  if (!strips.length) return [];
  strips.forEach((strip) => {
    strip.hidden = false;
    all("[hidden]", strip).forEach((element) => { element.hidden = false; });
    strip.querySelector(".strip-label").remove();
  });
  return [make("h3", { textContent: "Samples" }), ...strips];
}

function costs(run) {
  const rows = COSTS.filter(([name]) => run[name] !== undefined && run[name] !== null);
  return make("dl", {}, ...rows.flatMap(([name, label, text]) => [make("dt", { textContent: label }), make("dd", { textContent: text(run[name]) })]),
    make("dt", { textContent: "digest" }), make("dd", { textContent: run.digest }));
}

const INKS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C"];
function drawSmall(id, data, layout) {
  const axis = { automargin: true, ticks: "outside", zeroline: false };
  const whole = {
    height: 260, margin: { l: 50, r: 12, t: 8, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { size: 12 }, legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, ...layout,
  };
  ["xaxis", "yaxis", "xaxis2", "yaxis2", "xaxis3", "yaxis3"].forEach((name) => { if (whole[name]) whole[name] = { ...axis, ...whole[name] }; });
  Object.entries(colours(whole, dark.matches)).forEach(([path, value]) => setDeep(whole, path, value));
  window.Plotly.newPlot(document.getElementById(id), data, whole, { ...CONFIG, displayModeBar: false });
}

function drawCurves(run) {
  if (!run.curves) return;
  const data = Object.entries(run.curves).map(([kind, [x, y]], i) => ({ x: x, y: y, name: kind, mode: x.length > 1 ? "lines" : "markers", line: { color: INKS[i % INKS.length] } }));
  const log = data.every((trace) => trace.y.every((value) => value === null || value > 0));
  drawSmall("run-curves", data, { showlegend: true, xaxis: { title: { text: "training step" } }, yaxis: { title: { text: "loss" }, type: log ? "log" : "linear" } });
}

function drawPath(run) {
  if (!run.path) return;
  const path = run.path, data = [], names = [["image", "a"], ["noise", "b"], ["log_snr", "log-SNR"]];
  names.forEach(([name], i) => {
    const place = i ? { xaxis: "x" + (i + 1), yaxis: "y" + (i + 1) } : {};
    data.push({ x: path.original_times, y: path["original_" + name], name: "original", mode: "lines+markers", showlegend: !i, line: { color: "#8C8C8C", dash: "dash" }, marker: { size: 4 }, ...place });
    data.push({ x: path.times, y: path[name], name: "learned", mode: "lines+markers", showlegend: !i, line: { color: INKS[0] }, marker: { size: 6 }, ...place });
  });
  drawSmall("run-path", data, {
    grid: { rows: 1, columns: 3, pattern: "independent" }, xaxis: { title: { text: "t" } }, xaxis2: { title: { text: "t" } }, xaxis3: { title: { text: "t" } },
    yaxis: { title: { text: "a" } }, yaxis2: { title: { text: "b" } }, yaxis3: { title: { text: "log-SNR" } },
  });
}

function openLinked() {
  const found = /^#run=(.+)$/.exec(window.location.hash);
  if (found) openRun(decodeURIComponent(found[1]));
}

function startRuns() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("button.run");
    if (button) openRun(button.dataset.run);
  });
  // A click beside the panel closes it, as Escape does.
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => {
    all(".run-plot", dialog).forEach((plot) => window.Plotly.purge(plot));
    if (window.location.hash.startsWith("#run=")) history.replaceState(null, "", window.location.pathname + window.location.search);
  });
  window.addEventListener("hashchange", openLinked);
  openLinked();
}
