"""How numbers are written for people: three significant digits, an error with two, counts with k and M."""

import math

from analysis.statistics import Interval

ABSENT = "–"
_ACRONYMS = {"asbm", "cfm", "ddim", "dsb", "dsbm", "fid", "imf", "ipf", "kan", "ldsb", "nfe", "ot", "ve", "vp"}

_METRICS = {
    "frechet_distance": "FD", "fid": "FID", "cbw_uvp": "cBW-UVP", "bw_uvp": "BW-UVP", "wasserstein2": "W₂",
}  # fmt: skip
_SAMPLERS = {
    "euler_maruyama": "Euler–Maruyama", "exponential_heun": "exponential Heun",
    "ddim": "DDIM", "heun": "Heun", "euler": "Euler", "edm_heun": "Heun of EDM", "dpm_solver_pp": "DPM-Solver++",
    "dpm_solver_pp_3": "DPM-Solver++ (order 3)", "unipc": "UniPC", "ratio_path": "ratio path",
}  # fmt: skip


def metric(name: str) -> str:
    """A metric's name as papers print it."""
    return _METRICS.get(name, name.replace("_", " "))


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits: 0.0123, 4.56, 12,300, 1.2e-06."""
    if value is None or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4 or size > 6:
        return f"{value:.{digits - 1}e}"
    return _minus(f"{value:,.{max(0, digits - 1 - size)}f}")


def decimal(value: float | None) -> str:
    """A number between 0 and 1 with five decimals, as coefficients are printed: 0.99995."""
    return ABSENT if value is None or math.isnan(value) else _minus(f"{value:.5f}")


def interval(value: Interval | None) -> str:
    """Mean ± half-width, both to the place that the half-width's second digit has; the mean alone without one."""
    if value is None or value.n == 0:
        return ABSENT
    half = value.half_width
    # A half-width of rounding errors is none: the values are the same, as those of a floor without seeds.
    if math.isnan(half) or half <= 1e-12 * abs(value.mean) or not math.isfinite(value.mean):
        return number(value.mean)
    places = 1 - math.floor(math.log10(half))
    if abs(value.mean) >= 1e6 or places > 6:
        return f"{value.mean:.2e} ± {half:.1e}"
    places = max(0, min(places, 6))
    return _minus(f"{value.mean:,.{places}f} ± {half:,.{places}f}")


def with_n(value: Interval) -> str:
    """Mean ± half-width and the number of seeds: 1.02 ± 0.14, n = 3."""
    return f"{interval(value)}, n = {value.n}"


def limits(value: Interval | None) -> str:
    """Mean and both limits, 0.52 [0.41, 0.66]: for ratios, whose intervals are not symmetric."""
    if value is None or value.n == 0:
        return ABSENT
    if math.isnan(value.low):
        return number(value.mean)
    return f"{number(value.mean)} [{number(value.low)}, {number(value.high)}]"


def count(value: float | None) -> str:
    """A count: 950, 12.3 k, 4.56 M, 7.8 G."""
    if value is None or math.isnan(value):
        return ABSENT
    for size, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == ' k' else size):.3g}{suffix}"
    return f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """A time: 0.52 s, 42 s, 6 min 42 s, 3 h 05 min."""
    if seconds is None or math.isnan(seconds):
        return ABSENT
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min"


def p_equals(value: float) -> str:
    """A p value inside a sentence: p = 0.012, p < 0.001."""
    text = p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def p_value(value: float | None) -> str:
    """A p value: 0.23, 0.012, < 0.001."""
    if value is None or math.isnan(value):
        return ABSENT
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.995 else "1"


def level(value: object) -> str:
    """A level of a factor or another name of the records: 4, 0.5, score matching VP."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}"
    return " ".join(word.upper() if word in _ACRONYMS else word for word in str(value).split("_"))


def sampler(name: str) -> str:
    """A sampler as its authors write it."""
    return _SAMPLERS.get(name, level(name))


def plural(n: int, noun: str) -> str:
    """1 seed, 3 seeds, no seeds."""
    return f"{'no' if n == 0 else n} {noun}{'' if n == 1 else 's'}"


def _minus(text: str) -> str:
    return text.replace("-", "−")
