// Tables: filtered by row and column, numbers of the seeds that are left, sorted by a click on the head.
const tables = all("figure.table table").map((table) => ({ table: table, read: null, hidden: new Set(), seeds: null }));

function readTable(one) {
  if (!one.read) {
    one.read = {
      columns: all("th", one.table).map((head) => (head.dataset.facets ? JSON.parse(head.dataset.facets) : null)),
      rows: Array.from(one.table.tBodies[0].rows).map((row) => (
        { row: row, facets: JSON.parse(row.dataset.facets), trade: row.dataset.trade ? JSON.parse(row.dataset.trade) : null }
      )),
    };
  }
  return one.read;
}

function filterTable(one) {
  const read = readTable(one);
  read.columns.forEach((facets, column) => {
    const hide = Boolean(facets) && filter.hides(facets);
    if (hide === one.hidden.has(column)) return;
    one.hidden[hide ? "add" : "delete"](column);
    Array.from(one.table.rows).forEach((row) => { row.cells[column].hidden = hide; });
  });
  if (filter.seeds || one.seeds) reseed(one, read);
  read.rows.forEach(({ row, facets }) => { row.hidden = filter.hides(facets) || row.dataset.empty === "yes"; });
  chooseFront(read.rows);
  showNothingOf(one, read);
}

// What no other beats in both calls and value.
function frontOf(items) {
  let best = Infinity;
  const sorted = items.slice().sort((a, b) => a.trade[0] - b.trade[0] || a.trade[1] - b.trade[1]);
  return new Set(sorted.filter((item) => item.trade[1] < best && ((best = item.trade[1]), true)));
}

// Of rows that were traded against one another those that are left are chosen again.
function chooseFront(rows) {
  const front = frontOf(rows.filter(({ row, trade }) => trade && !row.hidden));
  rows.filter(({ trade }) => trade).forEach((item) => { item.row.hidden = !front.has(item); });
}

function showNothingOf(one, read) {
  one.table.closest("figure").toggleAttribute("data-empty", read.rows.length > 0 && read.rows.every(({ row }) => row.hidden));
}

// Every interval of the seeds that are left; what cannot be made anew is grey.
function reseed(one, read) {
  one.seeds = filter.seeds;
  read.rows.forEach(({ row }) => {
    const cells = Array.from(row.cells), own = cells.filter((cell) => cell.dataset.seeds);
    if (!own.length) return;
    let values = 0;
    own.forEach((cell) => { values += reseedCell(cell); });
    row.dataset.empty = filter.seeds && !values ? "yes" : "no";
    cells.filter((cell) => cell.classList.contains("numeric") && !cell.dataset.seeds).forEach((cell) => cell.classList.toggle("stale", Boolean(filter.seeds)));
  });
}

function reseedCell(cell) {
  const held = JSON.parse(cell.dataset.seeds), target = cell.querySelector("strong, button") || cell;
  if (cell.dataset.text === undefined) { cell.dataset.text = target.textContent; cell.dataset.whole = cell.dataset.value; }
  const seeds = left(held.by);
  if (seeds.length === Object.keys(held.by).length) {
    target.textContent = cell.dataset.text;
    cell.dataset.value = cell.dataset.whole;
    return seeds.length;
  }
  const found = meanInterval(seeds.map((seed) => held.by[seed]), held.of);
  target.textContent = held.of === "log t" ? formatLimits(found) : formatInterval(found);
  cell.dataset.value = found.n ? String(found.mean) : "";
  return seeds.length;
}

const filterTables = () => tables.forEach(filterTable);

// Click a head to sort by the number in full, click again to turn it round; empty cells stay last.
function sortTable(head) {
  const table = head.closest("table"), column = head.cellIndex, body = table.tBodies[0];
  const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const numeric = head.classList.contains("numeric");
  const key = (row) => {
    const value = row.cells[column].dataset.value;
    return value === "" ? null : numeric || !isNaN(Number(value)) ? Number(value) : value;
  };
  const compare = (first, second) => {
    const a = key(first), b = key(second);
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return direction * (a - b);
    return direction * String(a).localeCompare(String(b), undefined, { numeric: true });
  };
  all("th", table).forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  Array.from(body.rows).sort(compare).forEach((row) => body.appendChild(row));
}

// A shadow where a table goes on to the right.
function markMore(box) {
  box.toggleAttribute("data-more", box.scrollLeft + box.clientWidth < box.scrollWidth - 4);
}

function startTables() {
  all("th button").forEach((button) => button.addEventListener("click", () => sortTable(button.closest("th"))));
  // Only of tables in view: to measure the others would lay them out.
  const near = new Set(), observer = new IntersectionObserver((entries) => {
    entries.forEach((entry) => near[entry.isIntersecting ? "add" : "delete"](entry.target));
    near.forEach(markMore);
  });
  all("main .scroll").forEach((box) => {
    observer.observe(box);
    box.addEventListener("scroll", () => markMore(box), { passive: true });
  });
  window.addEventListener("resize", () => near.forEach(markMore));
}
