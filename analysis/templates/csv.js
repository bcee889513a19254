// Downloads: of a table the rows shown, of a figure the points shown, with numbers in full.
const quote = (value) => {
  const text = value === null || value === undefined || Number.isNaN(value) ? "" : String(value);
  return /[",\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
};
const toText = (lines) => lines.map((line) => line.map(quote).join(",")).join("\n") + "\n";

function tableCsv(table) {
  const heads = all("th", table).filter((head) => !head.hidden), rows = Array.from(table.tBodies[0].rows).filter((row) => !row.hidden);
  const columns = heads.map((head) => head.cellIndex);
  const spread = columns.map((column, i) => heads[i].classList.contains("numeric") && rows.some((row) => /[±[]/.test(row.cells[column].textContent)));
  const pair = (i, value, shown) => (spread[i] ? [value, shown] : [value]);
  const lines = [heads.flatMap((head, i) => pair(i, head.textContent.trim(), head.textContent.trim() + " (as shown)"))];
  rows.forEach((row) => lines.push(columns.flatMap((column, i) => pair(i, row.cells[column].dataset.value, row.cells[column].textContent.trim()))));
  return toText(lines);
}

const plain = (text) => String(text).replace(/<extra><\/extra>/g, "").replace(/<br>/g, "; ").replace(/&lt;/g, "<");
const at = (value, i) => (Array.isArray(value) ? value[i] : value);

function axisTitle(layout, name, letter) {
  const axis = layout[(name || letter).replace(letter, letter + "axis")] || {};
  return plain((axis.title && axis.title.text) || "");
}

function figureCsv(figure) {
  const layout = specOf(figure).layout, rows = [];
  tracesOf(figure).filter((trace) => trace.visible !== false && trace.mode !== "text").forEach((trace) => {
    if (trace.type === "heatmap") heatmapRows(trace, layout, rows);
    else traceRows(trace, layout, rows);
  });
  const names = ["trace", "x axis", "x", "x low", "x high", "y axis", "y", "y low", "y high", "n", "NFE", "run", "seed", "values by seed", "text"];
  const used = names.filter((name) => rows.some((row) => row[name] !== undefined && row[name] !== "" && row[name] !== null));
  return toText([used, ...rows.map((row) => used.map((name) => row[name]))]);
}

function traceRows(trace, layout, rows) {
  const n = Math.max((trace.x || []).length, (trace.y || []).length);
  for (let i = 0; i < n; i += 1) {
    const point = (trace.customdata && (isShared(trace) ? trace.customdata[0] : trace.customdata[i])) || {};
    // The ends of a band stand beside its line.
    const value = (axis) => (trace[axis] ? trace[axis][i] : i);
    if (point.side || (value("x") === null && value("y") === null)) continue;
    const row = {
      trace: plain(trace.name || ""), x: plainValue(value("x")), y: plainValue(value("y")), NFE: point.NFE, run: point.run, seed: point.seed,
      "x axis": axisTitle(layout, trace.xaxis, "x"), "y axis": axisTitle(layout, trace.yaxis, "y"),
      text: plain(at(trace.hovertext, i) || ""),
    };
    ["x", "y"].forEach((axis) => addInterval(row, trace, point, axis, i));
    rows.push(row);
  }
}

const plainValue = (value) => (typeof value === "string" ? plain(value) : value);

function addInterval(row, trace, point, axis, i) {
  const error = trace["error_" + axis], held = point[axis];
  if (held && !Array.isArray(Object.values(held)[0])) {
    const found = intervalOf(point, axis);
    row[axis + " low"] = found.low;
    row[axis + " high"] = found.high;
    row.n = found.n;
    if (axis === "y" || !point.y) row["values by seed"] = left(held).map((seed) => seed + ": " + held[seed]).join("; ");
  } else if (error && Array.isArray(error.array)) {
    row[axis + " low"] = row[axis] - (error.arrayminus || error.array)[i];
    row[axis + " high"] = row[axis] + error.array[i];
  } else if (held && Object.values(held)[0]) {
    row.n = left(held).length;
    row["values by seed"] = left(held).map((seed) => seed + ": " + held[seed][i]).join("; ");
  }
}

function heatmapRows(trace, layout, rows) {
  trace.z.forEach((cells, i) => cells.forEach((z, j) => {
    if (z === null) return;
    const point = trace.customdata[i][j], found = point.y ? intervalOf(point, "y") : { n: 0, mean: 10 ** z, low: NaN, high: NaN };
    rows.push({
      trace: plain(trace.y[i]) + " × " + plain(trace.x[j]), x: plain(trace.x[j]), "x axis": axisTitle(layout, null, "x"),
      "y axis": plain(trace.y[i]), y: found.mean, "y low": found.low, "y high": found.high, n: found.n, NFE: point.NFE, run: point.run,
      "values by seed": point.y ? left(point.y).map((seed) => seed + ": " + point.y[seed]).join("; ") : "", text: plain(trace.text[i][j]),
    });
  }));
}

function save(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff" + text], { type: "text/csv" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function download(panel) {
  const table = panel.querySelector("table"), figure = figures.find((one) => one.panel === panel);
  // A table of the same name may stand beside the figure.
  save((table ? "" : "figure_") + panel.dataset.key + ".csv", table ? tableCsv(table) : figureCsv(figure));
}
