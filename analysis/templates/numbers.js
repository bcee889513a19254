// What the page knows of its runs, and the numbers that it makes itself: as analysis.formats and analysis.statistics do.
const all = (selector, root) => Array.from((root || document).querySelectorAll(selector));
const ABSENT = "–";
let parsed = null;
function known() {
  if (!parsed) parsed = JSON.parse(document.getElementById("known").textContent);
  return parsed;
}

const fixed = (value, places) =>
  value.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", "−");
const scientific = (value, places) => value.toExponential(places).replace(/e([+-])(\d)$/, "e$10$2");

function formatNumber(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return ABSENT;
  if (value === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size < -4 || size > 6) return scientific(value, digits - 1);
  return fixed(value, Math.max(0, digits - 1 - size));
}

function formatInterval(found) {
  if (!found.n) return ABSENT;
  const half = (found.high - found.low) / 2;
  if (Number.isNaN(half) || half <= 1e-12 * Math.abs(found.mean)) return formatNumber(found.mean);
  const places = 1 - Math.floor(Math.log10(half));
  if (Math.abs(found.mean) >= 1e6 || places > 6) return scientific(found.mean, 2) + " ± " + scientific(half, 1);
  const shown = Math.max(0, Math.min(places, 6));
  return fixed(found.mean, shown) + " ± " + fixed(half, shown);
}

function formatLimits(found) {
  if (!found.n) return ABSENT;
  if (Number.isNaN(found.low)) return formatNumber(found.mean);
  return formatNumber(found.mean) + " [" + formatNumber(found.low) + ", " + formatNumber(found.high) + "]";
}

function formatDuration(seconds) {
  if (seconds < 10) return Number(seconds.toPrecision(2)) + " s";
  if (seconds < 59.5) return Math.round(seconds) + " s";
  const two = (value) => String(value).padStart(2, "0"), minutes = Math.floor(Math.round(seconds) / 60);
  if (minutes < 60) return minutes + " min " + two(Math.round(seconds) % 60) + " s";
  const whole = Math.round(seconds / 60);
  return Math.floor(whole / 60) + " h " + two(whole % 60) + " min";
}

// Mean with its 95 % t interval, of logarithms for "log t", or with one standard deviation.
function meanInterval(values, kind = "t") {
  const n = values.length;
  if (!n) return { n: 0, mean: NaN, low: NaN, high: NaN };
  const sample = kind === "log t" ? values.map(Math.log) : values;
  const mean = sample.reduce((sum, value) => sum + value, 0) / n;
  const back = kind === "log t" ? Math.exp : (value) => value;
  if (n === 1) return { n: 1, mean: back(mean), low: NaN, high: NaN };
  const deviation = Math.sqrt(sample.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1));
  const half = kind === "standard deviation" ? deviation : (known().t[n - 2] * deviation) / Math.sqrt(n);
  return { n: n, mean: back(mean), low: back(mean - half), high: back(mean + half) };
}
