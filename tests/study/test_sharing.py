"""Trainings of fields that runs share, counted by hand."""

import json

from sbbridge.study import sharing
from sbbridge.study.trial import TrialConfig, digests
from tests.study.paths import plan

FIELD = {"method.student": "flow", "method.coupling": "asbm", "method.num_steps": 5}
PATH = {**FIELD, "method.kind": "ldsb", "method.fit.kind": "teacher"}


def row(levels, numbers, phase="search", seed=1000, attempt=1, status="completed"):
    space = plan("joint_sweep").space()
    tree = space.tree(space.complete(levels))
    digest, training = digests(tree)
    return {"config_json": json.dumps(tree), "digest": digest, "training_digest": training, "seed": seed,
            "phase": phase, "attempt": attempt, "status": status, "optuna_numbers": numbers}  # fmt: skip


def count(*rows):
    return sharing.trainings(TrialConfig, rows)


def test_a_field_and_paths_for_it_are_one_training_however_many_ask():
    asked = (FIELD, {**FIELD, "method.num_steps": 20}, PATH, {**PATH, "network.grid_size": 4},
             {**FIELD, "method.coupling": "independent"})  # fmt: skip
    rows = [row(levels, [number]) for number, levels in enumerate(asked)]
    assert count(*rows) == {"search": {"asked": 5, "trained": 2}}
    assert sharing.in_words(count(*rows)) == "5 runs on 2 trained fields: 3 trainings saved"


def test_seeds_are_trainings_of_their_own_and_a_phase_counts_what_it_was_first_to_train():
    searched = [row(PATH, [0])]
    fresh = [row(levels, [], "ablation", seed, attempt=2) for levels in (FIELD, PATH) for seed in (0, 1)]
    again = [row(FIELD, [], "ablation", 1000, attempt=2)]
    assert count(*again, *fresh, *searched) == {
        "search": {"asked": 1, "trained": 1}, "ablation": {"asked": 5, "trained": 2},
    }  # fmt: skip


def test_attempts_that_failed_do_not_count_and_one_run_twice_is_one():
    rows = [row(FIELD, [0], status="failed"), row(FIELD, [0], attempt=2), row(FIELD, [0], attempt=3)]
    assert count(*rows) == {"search": {"asked": 1, "trained": 1}}
    assert sharing.in_words(count(*rows)) == ""
    assert sharing.in_words({}) == ""
