"""The paths that the authors released: their tables, and every file that is no such path."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sbbridge.networks import EfficientKAN
from sbbridge.path import ratio_nodes
from sbbridge.path.import_ldsb import import_path, load_ratio_network, main
from sbbridge.sde import DDPM
from sbbridge.solvers import reference_path

ROOT = Path(__file__).parents[2]
RELEASED = ROOT.parent / "shared/data/ldsb_paths"
needs_release = pytest.mark.skipif(not RELEASED.is_dir(), reason="the authors' files are not here")

# LDSB, Tab. 6, CIFAR-10: t, original a, original b, alpha and beta of the networks, a, b, b as printed; alpha and beta
# are not in print. a is printed as the networks give it.
TABLES = {
    5: """
0 0.99995 0.01000 0.99787 0.01581 1.00000 0.00923 0.00923
200 0.81015 0.58622 0.80274 0.65260 0.80274 0.58399 0.58399
400 0.43997 0.89801 0.53958 0.90820 0.43314 0.89487 0.89487
600 0.15990 0.98713 0.25011 0.98958 0.10833 0.98532 0.98532
800 0.03883 0.99925 0.19876 0.99570 0.02153 0.99570 0.99570
""",
    10: """
0 0.99995 0.01000 0.99978 0.03232 1.00000 0.01043 0.01043
100 0.94612 0.32382 0.94370 0.55256 0.94370 0.32281 0.32281
200 0.81015 0.58622 0.85465 0.75357 0.80653 0.58421 0.58421
300 0.62770 0.77845 0.77342 0.86659 0.62379 0.77525 0.77525
400 0.43997 0.89801 0.69795 0.93471 0.43538 0.89460 0.89460
500 0.27892 0.96031 0.64096 0.97740 0.27906 0.95708 0.95708
600 0.15990 0.98713 0.58098 0.99485 0.16213 0.97921 0.97921
700 0.08288 0.99656 0.46633 0.99792 0.07561 0.98428 0.98634
800 0.03883 0.99925 0.38320 0.99951 0.02897 0.98634 0.98634
900 0.01644 0.99986 0.31905 0.98682 0.00924 0.98682 1.00000
""",
    20: """
0 0.99995 0.01000 0.99991 0.05851 1.00000 0.01018 0.01018
50 0.98486 0.17335 0.98477 0.53630 0.98477 0.17398 0.17398
100 0.94612 0.32382 0.95972 0.70129 0.94510 0.32440 0.32440
150 0.88650 0.46272 0.93641 0.78983 0.88500 0.46258 0.46257
200 0.81015 0.58622 0.91302 0.84758 0.80802 0.58566 0.58566
250 0.72210 0.69179 0.89115 0.88867 0.72006 0.69098 0.69098
300 0.62770 0.77845 0.86863 0.91954 0.62547 0.77755 0.77755
350 0.53215 0.84665 0.84864 0.94313 0.53080 0.84559 0.89658
400 0.43997 0.89801 0.82824 0.96057 0.43963 0.89658 0.89658
450 0.35474 0.93497 0.80245 0.97425 0.35278 0.93338 0.95804
500 0.27892 0.96031 0.78169 0.98477 0.27576 0.95804 0.95804
550 0.21386 0.97686 0.77486 0.99835 0.21368 0.97286 0.97286
600 0.15990 0.98713 0.76951 0.99952 0.16443 0.97447 0.97447
650 0.11658 0.99318 0.75991 0.99954 0.12495 0.97494 0.97539
700 0.08288 0.99656 0.75939 0.99956 0.09488 0.97539 0.97583
750 0.05745 0.99835 0.74019 0.99957 0.07023 0.97583 0.97625
800 0.03883 0.99925 0.70613 0.99956 0.04959 0.97625 0.97625
850 0.02559 0.99967 0.67535 0.99953 0.03349 0.97668 0.97668
900 0.01644 0.99986 0.62966 0.99951 0.02109 0.97713 0.97761
950 0.01030 0.99995 0.58235 0.97761 0.01228 0.97761 1.00000
""",
}
PRINTED = 1e-5
every_table = pytest.mark.parametrize("steps", TABLES)


def table(steps):
    rows = [[float(word) for word in line.split()] for line in TABLES[steps].strip().splitlines()]
    return torch.tensor(rows, dtype=torch.float64).T


def released(steps):
    return [RELEASED / f"cifar10_{steps}steps_path_{side}.pth" for side in "ab"]


def weights(seed, grid_size=10, widths=(1, 4, 16, 4, 1)):
    network = EfficientKAN(grid_size, widths).build((), seed)
    return {name.removeprefix("inner."): value for name, value in network.state_dict().items()}


def save(file, state, plain=False):
    """As the authors do: weights, Adam, scheduler, epoch, step."""
    torch.save(state if plain else [state, {"state": {}, "param_groups": []}, {"last_epoch": 1}, 0, 0], file)
    return file


@pytest.fixture
def files(tmp_path):
    return [save(tmp_path / f"{side}.pth", weights(seed)) for seed, side in enumerate("ab")]


def run(capsys, *arguments):
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as exit_:  # argparse's way
        status = exit_.code
    return status, *capsys.readouterr()


def refused(capsys, *arguments):
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return err


@needs_release
@every_table
def test_released_networks_give_the_papers_table(steps):
    t, _, _, alpha, beta, a, b, printed = table(steps)
    torch.testing.assert_close((1000 * import_path(*released(steps), steps).times - 1), t)
    nodes = torch.arange(steps)
    for file, ratios in zip(released(steps), (alpha, beta), strict=True):
        said = load_ratio_network(file)(nodes / steps, nodes).squeeze(1)
        torch.testing.assert_close(said.double(), ratios, atol=PRINTED, rtol=0)
    for as_printed, noise in ((False, b), (True, printed)):
        path = import_path(*released(steps), steps, as_printed).checked()
        torch.testing.assert_close(path.image, a, atol=PRINTED, rtol=0)
        torch.testing.assert_close(path.noise, noise, atol=PRINTED, rtol=0)


@needs_release
@every_table
@pytest.mark.parametrize("as_printed", [False, True])
def test_the_command_prints_the_table(capsys, steps, as_printed):
    status, out, err = run(capsys, *released(steps), "--steps", steps, *["--as-printed"] * as_printed)
    assert status == 0
    rows = [[float(word) for word in line.split()] for line in out.splitlines()[1:]]
    t, a0, b0, alpha, beta, a, b, printed = table(steps)
    wanted = torch.stack([t, alpha, beta, a, printed if as_printed else b, a0, b0], dim=1)
    torch.testing.assert_close(torch.tensor(rows, dtype=torch.float64), wanted, atol=1.1 * PRINTED, rtol=0)
    dropped = {5: "", 10: "700, 900", 20: "350, 450, 650, 700, 750, 900, 950"}[steps]
    if dropped:
        assert f"t = {dropped}" in err
    elif as_printed:
        assert "drops no beta" in err
    assert "2 N" not in err
    assert "swapped" not in err


@pytest.mark.parametrize("steps", [2, 5, 10, 20, 50])
def test_ratios_are_asked_at_k_over_n_and_composed_from_both_ends(files, steps):
    """Times are the chain's, which the networks are not told; the original path is that of the reference."""
    path = import_path(*files, steps)
    alpha, beta = (
        [float(load_ratio_network(file)(torch.tensor([k / steps]), torch.tensor([k]))) for k in range(steps)]
        for file in files
    )
    a, b = [1.0], [beta[-1]]
    for k in range(1, steps):
        a.append(a[-1] * alpha[k])
        b.insert(0, beta[-1 - k] * b[0])
    for found, wanted in ((path.image, a), (path.noise, b)):
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-5, atol=0)
    nodes = ratio_nodes(reference_path(DDPM()), "leading_uniform", steps, "code", chain=1000)
    torch.testing.assert_close(path.times, nodes.times)


@pytest.mark.parametrize("steps", [5, 20])
def test_the_original_path_is_the_references(capsys, files, steps):
    _, out, _ = run(capsys, *files, "--steps", steps)
    nodes = ratio_nodes(reference_path(DDPM()), "leading_uniform", steps, "code", chain=1000)
    for line, a, b in zip(out.splitlines()[1:], nodes.original.image, nodes.original.noise, strict=True):
        assert line.split()[-2:] == [f"{float(a):.5f}", f"{float(b):.5f}"]


def test_as_printed_replaces_b_by_that_of_the_next_node(tmp_path):
    files = [save(tmp_path / f"{side}.pth", weights(seed, 20)) for seed, side in enumerate("ab")]
    exact, printed = import_path(*files, 10), import_path(*files, 10, as_printed=True)
    wanted = exact.noise.clone()
    wanted[7], wanted[9] = exact.noise[8], 1.0
    assert torch.equal(printed.noise, wanted)
    assert torch.equal(printed.image, exact.image)


def test_a_state_dict_alone_is_read_as_well(files, tmp_path):
    plain = [save(tmp_path / f"plain{side}.pth", weights(seed), plain=True) for seed, side in enumerate("ab")]
    assert torch.equal(import_path(*plain, 5).noise, import_path(*files, 5).noise)


@pytest.mark.usefixtures("global_state_untouched")
def test_reading_touches_no_global_state(files):
    import_path(*files, 5)


def test_output_is_the_scheduler_of_a_noise_predictor_on_ddpms_chain(capsys, files, tmp_path):
    output = tmp_path / "path.json"
    assert run(capsys, *files, "--steps", 5, "--output", output)[0] == 0
    found, path = json.loads(output.read_text()), import_path(*files, 5)
    assert found == {
        "times": path.times.tolist(), "image": path.image.tolist(), "noise": path.noise.tolist(), "momentum": None,
        "prediction": "epsilon", "chain": True, "num_train_timesteps": 1000, "denoiser_digest": "",
    }  # fmt: skip
    from sbbridge.integrations.diffusers import LDSBScheduler

    scheduler = LDSBScheduler.from_config(found)
    assert scheduler.timesteps.tolist() == [800, 600, 400, 200, 0]
    assert torch.equal(scheduler.path.image, path.image)
    assert [file.name for file in tmp_path.glob("*.partial")] == []


def test_another_grid_size_than_twice_the_steps_is_said(capsys, files):
    assert "G = 10 intervals, not 2 N = 40" in run(capsys, *files, "--steps", 20)[2]
    assert "2 N" not in run(capsys, *files, "--steps", 5)[2]


@needs_release
def test_exchanged_files_are_noticed(capsys):
    status, _, err = run(capsys, *reversed(released(10)), "--steps", 10)
    assert status == 0
    assert "are they swapped?" in err


@pytest.mark.parametrize("steps", [-5, 0, 1, 7, 2000])
def test_steps_must_divide_the_schedule(capsys, files, steps):
    assert f"steps must be >= 2 and divide 1000, got {steps}" in refused(capsys, *files, f"--steps={steps}")


def test_wrong_arguments_are_one_line(capsys, files):
    assert "invalid int value: 'ten'" in refused(capsys, *files, "--steps", "ten")
    assert "--steps" in refused(capsys, *files)
    assert "FILE_B" in refused(capsys, files[0], "--steps", 5)


def without(name):
    return {key: value for key, value in weights(0).items() if key != name}


def with_value(name, change):
    state = weights(0)
    state[name] = change(state[name])
    return state


def bent(grid):
    grid[:, 8] += 0.02
    return grid


WRONG = {
    "missing": (lambda: without("layers.2.spline_scaler"), "lacks layers.2.spline_scaler"),
    "no grid": (lambda: without("layers.0.grid"), "it has no layers.0.grid"),
    "extra": (lambda: weights(0) | {"head.bias": torch.zeros(1)}, "has unknown head.bias"),
    "MLP": (lambda: {"0.weight": torch.zeros(4, 1)}, "is no network of the release"),
    "widths": (lambda: weights(0, widths=(1, 4, 8, 4, 1)), r"layers.1.base_weight is [8, 4], expected [16, 4]"),
    "depth": (lambda: weights(0, widths=(1, 4, 16, 1)), "lacks layers.3.base_weight"),
    "grid sizes": (lambda: weights(0) | {f"layers.1.{key}": value for key, value in (
        ("grid", torch.zeros(4, 27)), ("spline_weight", torch.zeros(16, 4, 23)))}, "G = 10 as layers.0.grid says"),
    "grid of one": (lambda: with_value("layers.0.grid", lambda grid: grid[0]), "layers.0.grid is [17]"),
    "short grid": (lambda: with_value("layers.0.grid", lambda grid: grid[:, :7]), "layers.0.grid is [1, 7]"),
    "bent grid": (lambda: with_value("layers.1.grid", bent), "layers.1.grid is not the uniform grid of 10 intervals"),
    "wide grid": (lambda: with_value("layers.1.grid", lambda grid: 2 * grid - 1), "is not the uniform grid"),
    "NaN": (lambda: with_value("layers.3.base_weight", lambda w: w * torch.nan), "must hold finite"),
    "whole": (lambda: with_value("layers.3.base_weight", lambda w: w.long()), "must hold finite floating-point"),
    "numbers": (lambda: {"layers.0.grid": 1.0}, "holds no weights"),
    "none": (lambda: None, "holds no weights"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("plain", [False, True])
def test_files_that_are_no_released_network_are_one_line(capsys, tmp_path, files, case, plain):
    make, said = WRONG[case]
    wrong = save(tmp_path / "wrong.pth", make(), plain)
    message = refused(capsys, wrong, files[1], "--steps", 5)
    assert str(wrong) in message
    assert said in message
    assert str(wrong) in refused(capsys, files[0], wrong, "--steps", 5)
    with pytest.raises(ValueError, match=r"wrong\.pth"):
        load_ratio_network(wrong)


def test_networks_of_two_grid_sizes_are_refused(capsys, tmp_path, files):
    other = save(tmp_path / "other.pth", weights(0, 20))
    assert "has splines of G = 10 intervals, " in refused(capsys, files[0], other, "--steps", 5)


def test_ratios_of_zero_are_refused(capsys, tmp_path, files):
    """A sigmoid far out rounds to 0, and b would be 0 from there on."""
    state = {name: -1e4 * value.abs() if "layers.3" in name and "grid" not in name else value
             for name, value in weights(0).items()}  # fmt: skip
    state["layers.2.base_weight"] = state["layers.2.base_weight"].abs() + 1
    state["layers.1.base_weight"] = state["layers.1.base_weight"].abs() + 1
    state["layers.0.base_weight"] = state["layers.0.base_weight"].abs() + 1
    wrong = save(tmp_path / "wrong.pth", state)
    assert "gives a ratio of 0" in refused(capsys, files[0], wrong, "--steps", 5)


class Malicious:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["torch", "pickle", "newer", "inside", "old"])
def test_a_file_that_would_execute_code_is_refused_and_not_executed(capsys, tmp_path, files, how):
    evil, wrong = Malicious(tmp_path / "executed"), tmp_path / "wrong.pth"
    if how in ("pickle", "newer"):
        wrong.write_bytes(pickle.dumps(evil, protocol=2 if how == "pickle" else 5))
    elif how == "inside":
        save(wrong, weights(0) | {"layers.0.grid": evil})
    else:
        torch.save(evil, wrong, _use_new_zipfile_serialization=how == "torch")
    reason = "is torn, or no file of torch.save" if how == "newer" else "would execute code when read"
    assert f"{wrong} {reason}" in refused(capsys, wrong, files[1], "--steps", 5)
    assert not evil.folder.exists()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("zipped", [True, False])
def test_torn_files_are_said_to_be_torn(capsys, tmp_path, files, share, zipped):
    whole = tmp_path / "whole.pth"
    torch.save([weights(0), {}, {}, 0, 0], whole, _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(content[: int(share * len(content))])
    assert f"{wrong} is torn, or no file of torch.save" in refused(capsys, wrong, files[1], "--steps", 5)


@pytest.mark.parametrize("content", [b"hello, world\n", b"\x89PNG\r\n\x1a\n" + bytes(50), b"{}"])
def test_other_files_are_no_files_of_torch(capsys, tmp_path, files, content):
    wrong = tmp_path / "wrong.pth"
    wrong.write_bytes(content)
    assert "or no file of torch.save" in refused(capsys, wrong, files[1], "--steps", 5)


def test_files_that_cannot_be_read_or_written_are_named(capsys, tmp_path, files):
    gone = tmp_path / "gone.pth"
    assert f"cannot read {gone}: No such file" in refused(capsys, gone, files[1], "--steps", 5)
    assert f"cannot read {tmp_path}: Is a directory" in refused(capsys, tmp_path, files[1], "--steps", 5)
    output = tmp_path / "no" / "path.json"
    assert f"cannot write --output {output}" in refused(capsys, *files, "--steps", 5, "--output", output)
    before = files[0].read_bytes()
    assert "is one of the files" in refused(capsys, *files, "--steps", 5, "--output", files[0])
    assert files[0].read_bytes() == before


def test_debug_shows_the_traceback(capsys, tmp_path, files):
    status, _, err = run(capsys, tmp_path / "gone.pth", files[1], "--steps", 5, "--debug")
    assert status == 2
    assert "Traceback" in err


def test_the_module_runs_as_a_command(tmp_path, files):
    command = [sys.executable, "-m", "sbbridge.path.import_ldsb", *files, "--steps", "5"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    done = subprocess.run([*command, "--output", tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
