"""cluster.yaml as `ray up` would read it; nothing outside this machine is asked."""

import copy
from pathlib import Path

import pytest
import yaml

FILE = Path(__file__).parents[1] / "cluster.yaml"


def validated(cluster):
    """Ray's own preparation and schema; private names, so in this one place."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    return prepared


@pytest.fixture
def cluster():
    return yaml.safe_load(FILE.read_text())


def test_ray_accepts_it(cluster):
    assert validated(cluster)["head_node_type"] == "head"


def test_ray_would_refuse_a_misspelt_key(cluster):
    cluster["available_node_types"]["gpu_spot"]["spot"] = True
    with pytest.raises(Exception, match="spot"):
        validated(cluster)


def test_no_work_runs_on_the_head_and_trial_drivers_do(cluster):
    assert cluster["available_node_types"]["head"]["resources"] == {"CPU": 0, "train_driver": 64}


def test_every_node_agrees_on_authentication_and_ray_version(cluster):
    import ray

    starts = [line for key in ("head_start_ray_commands", "worker_start_ray_commands") for line in cluster[key]]
    assert all("RAY_AUTH_MODE=disabled" in line for line in starts if "ray start" in line)
    images = {cluster["docker"]["image"], cluster["docker"]["head_image"]}
    minor = ".".join(ray.__version__.split(".")[:2])
    assert all(image.startswith(f"rayproject/ray:{minor}.") for image in images)
