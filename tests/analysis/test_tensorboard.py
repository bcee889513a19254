"""Event files, read back as the TFRecord format says and not by the library that wrote them."""

import struct
from pathlib import Path

import pytest
from fabricated_study import Fabricator, config, fabricate
from tensorboardX.proto.event_pb2 import Event

from analysis.__main__ import main
from analysis.collect import collect
from analysis.tensorboard import write_events


def events(folder: Path) -> list[Event]:
    """Every record is its length, a checksum, the message, a checksum."""
    (path,) = folder.glob("events.*")
    data, place, found = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        event = Event()
        event.ParseFromString(data[place + 12 : place + 12 + length])
        found.append(event)
        place += length + 16
    return found


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder) for value in event.summary.value if value.WhichOneof("value") == "simple_value"
    }  # fmt: skip


def test_every_run_has_its_numbers(tmp_path: Path) -> None:
    fabricate(tmp_path, seeds=(0, 1))
    collected = collect(tmp_path)
    folder, new = write_events(collected, None)
    assert folder == tmp_path / "tensorboard"
    assert new == len(collected.trials)
    assert len([path for path in folder.glob("*/*") if path.is_dir()]) == new
    for run in collected.trials.itertuples():
        found = scalars(folder / run.phase / f"{run.digest[:12]}-{run.seed}-{run.attempt}")
        rows = collected.metrics
        rows = rows[(rows["digest"] == run.digest) & (rows["seed"] == run.seed) & (rows["phase"] == run.phase)]
        rows = rows[rows["value"].notna()]
        evaluated = rows[rows["nfe"].notna() & (rows["metric"] == "frechet_distance") & (rows["role"] == "model")]
        for row in evaluated.itertuples():
            tag = f"frechet_distance/{row.features}/{row.sampler}/{row.grid}/{row.split}"
            assert found[tag, int(row.nfe)] == pytest.approx(row.value, rel=1e-6)
        for row in rows[rows["metric"] == "loss"].itertuples():
            stage = row.stage.replace(": ", "_").replace(" ", "_")
            assert found[f"loss/{stage}", int(row.step)] == pytest.approx(row.value, rel=1e-6)


def test_hyperparameters_are_those_in_which_runs_differ(tmp_path: Path) -> None:
    fabricate(tmp_path, search=False, seeds=(0,))
    collected = collect(tmp_path)
    folder, _ = write_events(collected, None)
    (first, *_) = sorted(path for path in (folder / "ablation").iterdir())
    tags = {value.tag for event in events(first) for value in event.summary.value}
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"} <= tags
    (start,) = [
        value.metadata.plugin_data.content
        for event in events(first) for value in event.summary.value if value.tag == "_hparams_/session_start_info"
    ]  # fmt: skip
    assert b"reference.beta_max" in start
    assert b"method.coupling" in start
    assert b"training.batch_size" not in start  # the same in all


def test_again_writes_new_runs_alone_and_drops_what_was_replaced(tmp_path: Path) -> None:
    maker = Fabricator(tmp_path)
    maker.run(config(), 0)
    folder, new = write_events(collect(tmp_path), None)
    (held,) = folder.glob("*/*/events.*")
    assert new == 1
    maker.run(config(), 1)
    assert write_events(collect(tmp_path), None)[1] == 1
    assert held.exists()
    replaced = maker.trial(config(), 0, status="completed")
    maker.write_trials({**replaced, "attempt": replaced["attempt"] + 10**9})
    assert write_events(collect(tmp_path), None)[1] == 1
    assert not held.exists()
    assert len(list(folder.glob("*/*"))) == 2


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Fabricator(tmp_path / "study").run(config(), 0)
    assert main(["tensorboard", str(tmp_path / "study"), "--out", str(tmp_path / "events")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'events'}: 1 new run\n"
    Fabricator(tmp_path / "empty")
    assert main(["tensorboard", str(tmp_path / "empty")]) == 2
    assert "no run has been recorded yet" in capsys.readouterr().err
