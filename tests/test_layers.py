"""Who imports whom, what importing costs, and who may touch global random state."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for package in ("sbbridge", "analysis", "studies") for path in (ROOT / package).rglob("*.py"))


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_go_one_way():
    script = Path(sys.executable).with_name("lint-imports")
    if not script.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("sbbridge", ("torch", "ray", "pandas", "plotly")), ("sbbridge.records", ("torch", "ray", "pandas", "plotly")),
        ("sbbridge.config", ("torch", "ray", "pandas", "plotly")), ("analysis", ("torch", "ray")),
        ("sbbridge.training", ("ray", "pandas", "plotly")), ("sbbridge.sampling", ("ray", "pandas", "plotly")),
    ],
)  # fmt: skip
def test_importing_loads_nothing_heavy(module, absent):
    loaded = fresh(f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})").split()
    assert not set(absent) & set(loaded)


def calls(path: Path) -> list[str]:
    """Dotted names of everything that is called in a file."""
    return [ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


GLOBAL_STATE = re.compile(
    r"^(torch\.(manual_seed|seed|set_rng_state|cuda\.manual_seed(_all)?|random\.manual_seed)"
    r"|(np|numpy)\.random\.(?!default_rng$|Generator$|SeedSequence$|PCG64$)\w+|random\.\w+|seed_everything)$"
)


def test_no_code_touches_global_random_state():
    """torch's generator is seeded in rng.isolated alone, which puts it back; numpy's and Python's nowhere."""
    found = [
        f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for name in calls(path) if GLOBAL_STATE.match(name)
    ]
    putting_back = {"random.getstate", "random.setstate", "np.random.get_state", "np.random.set_state"}
    assert set(found) <= {f"sbbridge/rng.py: {name}" for name in {"torch.cuda.manual_seed", *putting_back}}
    seeders = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCES
        if any("default_generator" in name for name in calls(path))
    }
    assert seeders <= {"sbbridge/rng.py"}


def test_random_draws_of_torch_name_their_generator():
    """torch.randn and its like without generator= would draw from the global state."""
    draws = {
        "torch.randn",
        "torch.rand",
        "torch.randint",
        "torch.randperm",
        "torch.normal",
        "torch.multinomial",
        "torch.bernoulli",
    }
    without = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and (
                ast.unparse(node.func) in draws
                or (ast.unparse(node.func).endswith("_like") and "rand" in ast.unparse(node.func))
            ):
                names = {keyword.arg for keyword in node.keywords}
                if "generator" not in names:
                    without.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert without == []


def test_nothing_is_unpickled():
    """Checkpoints and artefacts come from other machines: no pickle, and torch.load for tensors alone."""
    unsafe = {"pickle.load", "pickle.loads", "joblib.load", "cloudpickle.load", "cloudpickle.loads"}
    assert [f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for name in calls(path) if name in unsafe] == []
    loads = [
        ast.unparse(node) for path in SOURCES for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]  # fmt: skip
    assert [load for load in loads if "weights_only=True" not in load] == []


def test_the_product_names_no_path_of_this_machine():
    assert [path.name for path in SOURCES if "/work/" in path.read_text()] == []
