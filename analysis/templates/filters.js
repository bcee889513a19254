// The filter bar: which values are switched off, and whether they hide a thing.
const boxes = all("#filters input");

function readFilter() {
  const hidden = {};
  boxes.filter((box) => !box.checked).forEach((box) => {
    const name = box.closest("fieldset").dataset.facet;
    (hidden[name] = hidden[name] || new Set()).add(box.value);
  });
  const names = Object.keys(hidden), seen = new Map();
  const hides = (facets) => names.some((name) => name in facets && hidden[name].has(facets[name]));
  return {
    active: names.length > 0,
    count: boxes.filter((box) => !box.checked).length,
    seeds: hidden.seed || null,
    hides: hides,
    // A run's name begins with the digest of its setting, whose facets the page knows.
    hidesRun(run) {
      const digest = run.split("-")[0];
      if (!seen.has(digest)) seen.set(digest, digest in known().settings && hides(known().settings[digest].facets));
      return seen.get(digest);
    },
    hidesPoint(point) {
      if (point.NFE && hidden.NFE && hidden.NFE.has(point.NFE)) return true;
      if (point.seed && hidden.seed && hidden.seed.has(point.seed)) return true;
      return Boolean(point.run) && this.hidesRun(point.run);
    },
  };
}

let filter = readFilter();

function applyFilters() {
  filter = readFilter();
  filterElements();
  filterTables();
  refilterFigures();
  const state = document.getElementById("filter-state");
  if (state) state.textContent = filter.count ? "· " + filter.count + " switched off" : "";
  const note = document.getElementById("filter-seeds");
  if (note) note.hidden = !filter.seeds;
}

let faceted = null;
function filterElements() {
  if (!faceted) {
    faceted = all(".part[data-facets], .strip[data-facets], .picture[data-facets]");
    faceted = faceted.map((element) => ({ element: element, facets: JSON.parse(element.dataset.facets) }));
  }
  faceted.forEach((one) => { one.element.hidden = filter.hides(one.facets); });
  all("figure.panel").filter((panel) => panel.querySelector(".strip")).forEach((panel) => {
    showNothing(panel, all(".strip", panel).every((strip) => strip.hidden));
  });
}

function showNothing(panel, nothing) {
  const note = panel.querySelector(".nothing");
  if (note) note.hidden = !nothing;
}

function switchAll(fieldset) {
  const own = all("input", fieldset), on = own.some((box) => !box.checked);
  own.forEach((box) => { box.checked = on; });
  applyFilters();
}

function startFilters() {
  boxes.forEach((box) => box.addEventListener("change", applyFilters));
  all("#filters .all").forEach((button) => button.addEventListener("click", () => switchAll(button.closest("fieldset"))));
  const reset = document.getElementById("filter-reset");
  if (reset) reset.addEventListener("click", () => { boxes.forEach((box) => { box.checked = true; }); applyFilters(); });
  // Firefox keeps the boxes of a reloaded page as they were.
  if (filter.active) applyFilters();
}
