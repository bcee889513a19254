"""The tiny study as a script, in which a training on independent pairs hangs; Ray's processes get it by value."""

import sys
import time

from sbbridge.study import environment
from sbbridge.study.cli import main
from studies.asbm_sweep import write_report
from tests.study.tiny_study import STUDY


def hanging(config):
    from sbbridge.study.ray_inline import inline_trial

    (job,) = config["trial"]["jobs"]
    if job["tree"]["method"]["coupling"] == "independent":
        time.sleep(10_000)  # as a read from a file system that is gone would, in one call
    inline_trial(config)


if __name__ == "__main__":
    environment.prepare(local=True)
    from sbbridge.study import ray_tune

    ray_tune.inline_trial = hanging
    ray_tune.TIMEOUT_GRACE_S = 2.0
    sys.exit(main(STUDY, write_report))
