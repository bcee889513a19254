// Figures: drawn when they come near, filtered point by point, in the colours of the page.
const CONFIG = {
  displaylogo: false, displayModeBar: "hover", responsive: true, plotlyServerURL: "",
  // Plotly's own tool bar has a button that uploads the figure with its data: the report must not have it.
  modeBarButtonsToRemove: ["sendChartToCloud", "select2d", "lasso2d", "autoScale2d"],
};
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const figures = all(".panel .plotly-graph-div").map((plot) => (
  { plot: plot, panel: plot.closest("figure"), near: false, drawn: false, filter: null, made: null }
));

function specOf(figure) {
  if (!figure.made) figure.made = JSON.parse(figure.plot.nextElementSibling.textContent);
  return figure.made;
}

// Figures have no background; their ink follows the page.
function colours(layout, isDark) {
  const ink = isDark ? "#dfe4ea" : "#3d444d", line = isDark ? "rgba(160,170,185,0.22)" : "rgba(110,120,135,0.22)";
  const change = {
    "font.color": ink, "hoverlabel.bgcolor": isDark ? "#262e3a" : "#ffffff", "hoverlabel.font.color": ink,
    "modebar.color": isDark ? "#7d8896" : "#a9b1bc", "modebar.activecolor": isDark ? "#56b4e9" : "#0072b2",
  };
  Object.keys(layout).filter((name) => /^[xy]axis\d*$/.test(name)).forEach((name) => {
    ["gridcolor", "linecolor", "tickcolor"].forEach((part) => { change[name + "." + part] = line; });
  });
  return change;
}

function setDeep(target, path, value) {
  const names = path.split("."), last = names.pop();
  names.forEach((name) => { target = target[name] = target[name] || {}; });
  target[last] = value;
}

// An entry of a trace's customdata: of one point, or of all where there is but one.
const isShared = (trace) => trace.customdata.length === 1 && (trace.x || trace.y || []).length > 1;
const left = (bySeed) => Object.keys(bySeed).filter((seed) => !filter.seeds || !filter.seeds.has(seed));
const isLog = (layout, name, letter) => {
  const axis = layout[(name || letter).replace(letter, letter + "axis")];
  return Boolean(axis) && axis.type === "log";
};

function filteredTrace(trace, layout) {
  if (!filter.active) return trace;
  if (trace.meta && filter.hides(trace.meta)) return { ...trace, visible: false };
  if (!trace.customdata) return trace;
  if (trace.type === "heatmap") return filteredHeatmap(trace);
  if (isShared(trace)) return filteredWhole(trace);
  const kept = [];
  trace.customdata.forEach((point, i) => { if (keeps(point)) kept.push(i); });
  if (!kept.length) return { ...trace, visible: false };
  const found = kept.length < trace.customdata.length ? subset(trace, kept) : { ...trace };
  return filter.seeds ? remade(found, layout) : found;
}

function keeps(point) {
  if (filter.hidesPoint(point)) return false;
  if (!filter.seeds) return true;
  const axes = ["x", "y"].filter((axis) => point[axis]);
  if (!axes.every((axis) => left(point[axis]).length > 0)) return false;
  // A band has no width where one seed is left.
  return !point.side || axes.some((axis) => left(point[axis]).length > 1);
}

function subset(trace, kept) {
  const n = trace.customdata.length;
  const pick = (value) => (Array.isArray(value) && value.length === n ? kept.map((i) => value[i]) : value);
  const pickAll = (object) => Object.fromEntries(Object.entries(object).map(([name, value]) => [name, pick(value)]));
  const found = pickAll(trace);
  ["error_x", "error_y", "marker"].forEach((name) => { if (trace[name]) found[name] = pickAll(trace[name]); });
  return found;
}

// Places and intervals of the seeds that are left.
function remade(trace, layout) {
  ["x", "y"].forEach((axis) => {
    if (!trace.customdata.some((point) => point[axis] && left(point[axis]).length < Object.keys(point[axis]).length)) return;
    const log = isLog(layout, trace[axis + "axis"], axis), error = trace["error_" + axis];
    const found = trace.customdata.map((point) => point[axis] && intervalOf(point, axis));
    const least = (one) => (log && !(one.low >= 0.1 * one.mean) ? 0.1 * one.mean : one.low);
    trace[axis] = trace[axis].map((old, i) => {
      if (!found[i]) return old;
      const side = trace.customdata[i].side;
      return side === "high" ? found[i].high : side === "low" ? least(found[i]) : found[i].mean;
    });
    if (!error || !Array.isArray(error.array)) return;
    const size = (value) => (Number.isFinite(value) ? value : 0);
    trace["error_" + axis] = { ...error, array: found.map((one, i) => (one ? size(one.high - one.mean) : error.array[i])) };
    if (error.arrayminus) {
      trace["error_" + axis].arrayminus = found.map((one, i) => (one ? size(one.mean - (Number.isNaN(one.low) ? NaN : least(one))) : error.arrayminus[i]));
    }
  });
  return trace;
}

function intervalOf(point, axis) {
  return meanInterval(left(point[axis]).map((seed) => point[axis][seed]), point.spread ? "standard deviation" : "t");
}

function filteredWhole(trace) {
  const point = trace.customdata[0];
  if (filter.hidesPoint(point)) return { ...trace, visible: false };
  if (!filter.seeds || !point.y) return trace;
  const seeds = left(point.y);
  if (!seeds.length) return { ...trace, visible: false };
  const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);
  const y = trace.y.map((_, i) => mean(seeds.map((seed) => point.y[seed][i]).filter((value) => value !== null)));
  return { ...trace, y: y };
}

function filteredHeatmap(trace) {
  const z = trace.z.map((row) => row.slice()), text = trace.text.map((row) => row.slice());
  trace.customdata.forEach((row, i) => row.forEach((point, j) => {
    if (!keeps(point)) {
      z[i][j] = null;
      text[i][j] = "";
    } else if (filter.seeds && point.y) {
      const found = intervalOf(point, "y");
      z[i][j] = Math.log10(found.mean);
      text[i][j] = formatInterval(found) + "<br>n = " + found.n;
    }
  }));
  return { ...trace, z: z, text: text };
}

// The line through the points that none beats, of those that are left.
function chooseLine(traces, place) {
  const points = traces.flatMap((trace, of) => (
    trace.visible === false || of === place ? [] : (trace.customdata || []).map((point, i) => ({ of: of, i: i, trade: point.trade, point: point }))
  )).filter((one) => one.trade);
  const front = frontOf(points), line = points.filter((one) => front.has(one)).sort((a, b) => a.trade[0] - b.trade[0]);
  const along = (axis) => line.map((one) => traces[one.of][axis][one.i]);
  const owners = new Set(line.map((one) => one.of));
  traces[place] = { ...traces[place], x: along("x"), y: along("y"), customdata: line.map((one) => one.point), visible: line.length > 0 };
  new Set(points.map((one) => one.of)).forEach((of) => {
    traces[of] = { ...traces[of], marker: { ...traces[of].marker, opacity: owners.has(of) ? 0.95 : 0.45 } };
  });
}

const isEmpty = (trace) => trace.visible === false || (trace.type === "heatmap" && trace.z.every((row) => row.every((value) => value === null)));
function tracesOf(figure) {
  const spec = specOf(figure);
  const traces = spec.data.map((trace) => filteredTrace(trace, spec.layout));
  if (filter.active) spec.data.forEach((trace, i) => { if (trace.meta && trace.meta.front && !filter.hides(trace.meta)) chooseLine(traces, i); });
  // Lines of floors and ticks, which no filter touches, are nothing by themselves.
  const told = traces.filter((trace, i) => spec.data[i].customdata || spec.data[i].meta);
  showNothing(figure.panel, told.length > 0 && told.every(isEmpty));
  return traces;
}

function draw(figure) {
  const spec = specOf(figure);
  Object.entries(colours(spec.layout, dark.matches)).forEach(([path, value]) => setDeep(spec.layout, path, value));
  fit(spec.layout, figure.plot);
  const options = { ...CONFIG, toImageButtonOptions: { format: "svg", filename: figure.panel.dataset.key } };
  figure.drawn = true;
  figure.dark = dark.matches;
  figure.filter = filter;
  window.Plotly.newPlot(figure.plot, { data: tracesOf(figure), layout: spec.layout, frames: spec.frames || [], config: options });
  figure.plot.on("plotly_click", (event) => {
    const trace = event.points[0].data, point = trace.customdata && (isShared(trace) ? trace.customdata[0] : event.points[0].customdata);
    if (point && point.run) setTimeout(() => openRun(point.run), 0);
  });
}

// On a narrow page long names would leave the figure no room; panels side by side are scrolled instead of squeezed.
function fit(layout, plot) {
  const axes = Object.keys(layout).filter((name) => /^xaxis\d*$/.test(name)).map((name) => layout[name]);
  const across = new Set(axes.map((axis) => String((axis.domain || [0])[0]))).size;
  const least = (layout.meta && layout.meta.least) || (across > 1 ? 90 + 190 * across : 0);
  if (least > plot.clientWidth) plot.style.width = least + "px";
  if (plot.clientWidth >= 560) return;
  layout.font.size = 11;
  layout.margin.l = Math.min(layout.margin.l, 44);
  layout.margin.r = 8;
  Object.keys(layout).filter((name) => /^yaxis\d*$/.test(name) && layout[name].title).forEach((name) => { layout[name].title.standoff = 4; });
}

function refilter(figure) {
  figure.filter = filter;
  const frames = specOf(figure).frames;
  window.Plotly.react(figure.plot, { data: tracesOf(figure), layout: figure.plot.layout, config: CONFIG, ...(frames ? { frames: frames } : {}) });
}

const isStale = (figure) => !figure.drawn || figure.filter !== filter;
const bring = (figure) => (figure.drawn ? refilter(figure) : draw(figure));
// A figure that is folded or hidden has no width: it waits until it is shown.
// The first two are drawn at once: a reader gets there in a moment.
const isWanted = (figure, i) => figure.near || (i < 2 && !figure.drawn);
const waiting = () => figures.filter((figure, i) => isWanted(figure, i) && isStale(figure) && figure.plot.offsetParent !== null);

let working = false;
function work() {
  const next = waiting();
  working = next.length > 0;
  if (!working) return;
  bring(next.find(inView) || next[0]);
  setTimeout(work, 0);
}
// After the next frame: what was clicked shows first. A page that is not shown, or only pictured, may have no frames.
function resume() {
  if (working) return;
  working = true;
  let begun = false;
  const begin = () => { if (!begun) { begun = true; setTimeout(work, 0); } };
  requestAnimationFrame(begin);
  setTimeout(begin, 250);
}
function inView(figure) {
  const box = figure.plot.getBoundingClientRect();
  return box.bottom > 0 && box.top < window.innerHeight;
}
// What the reader sees is drawn, or changes, at once, the rest when it comes near.
function refilterFigures() {
  waiting().filter(inView).forEach(bring);
  resume();
}

function repaint(isDark) {
  figures.filter((figure) => figure.drawn && figure.dark !== isDark).forEach((figure) => {
    figure.dark = isDark;
    window.Plotly.relayout(figure.plot, colours(specOf(figure).layout, isDark));
  });
}

function startFigures() {
  const observer = new IntersectionObserver((entries) => {
    entries.forEach((entry) => { figures.find((figure) => figure.plot === entry.target).near = entry.isIntersecting; });
    resume();
  }, { rootMargin: "500px 0px" });
  figures.forEach((figure) => observer.observe(figure.plot));
  figures.forEach((figure) => { figure.near = inView(figure); });
  refilterFigures();
  dark.addEventListener("change", (event) => repaint(event.matches));
  window.addEventListener("beforeprint", () => {
    figures.filter((figure) => isStale(figure) && figure.plot.offsetParent !== null).forEach(bring);
    repaint(false);
  });
  window.addEventListener("afterprint", () => repaint(dark.matches));
}
