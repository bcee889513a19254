(function () {
  "use strict";
  const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
  const plots = all(".plotly-graph-div");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  // Figures have no background; their ink follows the page.
  function paintOne(plot, isDark) {
    if (!plot.layout) return;
    const ink = isDark ? "#dfe4ea" : "#3d444d";
    const line = isDark ? "rgba(160,170,185,0.22)" : "rgba(110,120,135,0.22)";
    const surface = isDark ? "#262e3a" : "#ffffff";
    const change = { "font.color": ink, "hoverlabel.bgcolor": surface, "hoverlabel.font.color": ink, "modebar.color": isDark ? "#7d8896" : "#a9b1bc", "modebar.activecolor": isDark ? "#56b4e9" : "#0072b2" };
    Object.keys(plot._fullLayout).filter((name) => /^[xy]axis\d*$/.test(name)).forEach((name) => {
      change[name + ".gridcolor"] = line;
      change[name + ".linecolor"] = line;
      change[name + ".tickcolor"] = line;
    });
    window.Plotly.relayout(plot, change);
  }
  const paint = (isDark) => plots.forEach((plot) => paintOne(plot, isDark));

  // The queued figures: those in view first, then the others in their order, with a pause for the reader's clicks.
  const waiting = window.figureQueue.queue;
  const inView = (call) => {
    const box = document.getElementById(call[0]).getBoundingClientRect();
    return box.height > 0 && box.bottom > -300 && box.top < window.innerHeight + 600;
  };
  function drawNext() {
    let index = waiting.findIndex(inView);
    // A figure that a filter hides has no width yet: it waits until it is shown.
    if (index < 0) index = waiting.findIndex((call) => document.getElementById(call[0]).offsetParent !== null);
    if (index < 0) return false;
    const call = waiting.splice(index, 1)[0];
    const plot = document.getElementById(call[0]);
    window.figureQueue.draw(...call).then(() => { paintOne(plot, dark.matches); filterPlot(plot, hiddenValues()); });
    return true;
  }
  let drawing = false;
  function drawRest() {
    drawing = drawNext();
    if (drawing) setTimeout(drawRest, 0);
  }
  function resumeDrawing() {
    if (drawing) return;
    drawing = true;
    setTimeout(drawRest, 0);
  }

  paint(dark.matches);
  dark.addEventListener("change", (event) => paint(event.matches));
  window.addEventListener("beforeprint", () => { while (drawNext()); paint(false); });
  window.addEventListener("afterprint", () => paint(dark.matches));

  // Filters: what carries a value that is switched off is hidden; what carries none of the filter's values stays.
  const boxes = all("#filters input");
  function hiddenValues() {
    const hidden = {};
    boxes.filter((box) => !box.checked).forEach((box) => {
      const name = box.closest("fieldset").dataset.facet;
      (hidden[name] = hidden[name] || new Set()).add(box.value);
    });
    return hidden;
  }
  const isHidden = (hidden, facets) => Object.keys(hidden).some((name) => name in facets && hidden[name].has(facets[name]));
  function filterPlot(plot, hidden) {
    if (!plot.data || !plot.data.some((trace) => trace.meta)) return;
    const visible = plot.data.map((trace) => !(trace.meta && isHidden(hidden, trace.meta)));
    const before = plot.data.map((trace) => trace.visible !== false);
    if (visible.some((value, i) => value !== before[i])) window.Plotly.restyle(plot, { visible: visible });
  }
  function applyFilters() {
    const hidden = hiddenValues();
    all("[data-facets]").forEach((element) => { element.hidden = isHidden(hidden, JSON.parse(element.dataset.facets)); });
    plots.forEach((plot) => filterPlot(plot, hidden));
    resumeDrawing();
    const count = boxes.filter((box) => !box.checked).length;
    const state = document.getElementById("filter-state");
    if (state) state.textContent = count ? "· " + count + " switched off" : "";
  }
  boxes.forEach((box) => box.addEventListener("change", applyFilters));
  const reset = document.getElementById("filter-reset");
  if (reset) reset.addEventListener("click", () => { boxes.forEach((box) => { box.checked = true; }); applyFilters(); });
  // Firefox keeps the boxes of a reloaded page as they were.
  if (boxes.length) applyFilters();
  resumeDrawing();

  // Tables: click a head to sort by the number in full, click again to turn it round; empty cells stay last.
  function sortTable(head) {
    const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
    const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const numeric = head.classList.contains("numeric");
    const key = (row) => {
      const value = row.cells[column].dataset.value;
      return value === "" ? null : numeric || !isNaN(Number(value)) ? Number(value) : value;
    };
    const compare = (left, right) => {
      const a = key(left), b = key(right);
      if (a === null || b === null) return (a === null) - (b === null);
      if (typeof a === "number" && typeof b === "number") return direction * (a - b);
      return direction * String(a).localeCompare(String(b), undefined, { numeric: true });
    };
    all("th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
    Array.from(body.rows).sort(compare).forEach((row) => body.appendChild(row));
  }
  all("th").forEach((head) => head.querySelector("button").addEventListener("click", () => sortTable(head)));
  all("td").forEach((cell) => { if (cell.textContent.length > 60) cell.classList.add("long"); });

  // A shadow where a table goes on to the right.
  const boxesOfTables = all(".scroll");
  function markMore() {
    boxesOfTables.forEach((box) => box.toggleAttribute("data-more", box.scrollLeft + box.clientWidth < box.scrollWidth - 4));
  }
  boxesOfTables.forEach((box) => box.addEventListener("scroll", markMore));
  window.addEventListener("resize", markMore);
  markMore();

  // Downloads: the rows shown, in the order shown, with numbers in full and, for intervals, as written.
  function toCsv(table) {
    const quote = (text) => (/[",\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text);
    const heads = all("th", table);
    const spread = heads.map((head, i) => Array.from(table.tBodies[0].rows).some((row) => /[±[]/.test(row.cells[i].textContent) && head.classList.contains("numeric")));
    const lines = [heads.flatMap((head, i) => (spread[i] ? [head.textContent.trim(), head.textContent.trim() + " (as shown)"] : [head.textContent.trim()]))];
    Array.from(table.tBodies[0].rows).filter((row) => !row.hidden).forEach((row) => {
      lines.push(Array.from(row.cells).flatMap((cell, i) => (spread[i] ? [cell.dataset.value, cell.textContent.trim()] : [cell.dataset.value])));
    });
    return lines.map((line) => line.map(quote).join(",")).join("\n") + "\n";
  }
  all(".download").forEach((button) => button.addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff" + toCsv(button.closest("figure").querySelector("table"))], { type: "text/csv" }));
    link.download = button.dataset.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }));
})();
