"""deploy/: what Kubernetes and Slurm are given, by their own names for things; neither is asked."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from sbbridge.study import cli
from studies.asbm_sweep import STUDY

DEPLOY = Path(__file__).parents[1] / "deploy"

# KubeRay 1.7, CRD ray.io/v1; pod templates are Kubernetes' own
RAYJOB = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint", "entrypointNumCpus",
    "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "preRunningDeadlineSeconds", "rayClusterSpec",
    "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig", "submitterPodTemplate",
    "suspend", "ttlSecondsAfterFinished",
}  # fmt: skip
CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "managedBy", "networkPolicy", "rayVersion", "suspend", "tlsOptions", "upgradeStrategy",
    "workerGroupSpecs",
}  # fmt: skip
HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
WORKERS = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams",
    "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip


@pytest.fixture(scope="module")
def documents():
    return {d["kind"]: d for d in yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())}


@pytest.fixture(scope="module")
def job(documents):
    assert documents["RayJob"]["apiVersion"] == "ray.io/v1"
    return documents["RayJob"]["spec"]


@pytest.fixture(scope="module")
def cluster(job):
    return job["rayClusterSpec"]


def unknown(data, type_, path=""):
    """Paths in the data that the Kubernetes client's models do not have, or hold another type for."""
    from kubernetes.client import models

    inner = re.fullmatch(r"[lL]ist\[(.+)\]|[dD]ict[\[(]str, (.+)[\])]", type_)
    if inner and inner[1]:
        return [p for i, item in enumerate(data) for p in unknown(item, inner[1], f"{path}[{i}]")]
    if inner:
        return [p for name, item in data.items() for p in unknown(item, inner[2], f"{path}.{name}")]
    if type_ in ("str", "int", "bool", "float"):
        return [] if type(data).__name__ == type_ else [path]
    if not hasattr(models, type_):
        return []
    model = getattr(models, type_)
    fields = {name: model.openapi_types[field] for field, name in model.attribute_map.items()}
    return [
        p for name, item in data.items()
        for p in (unknown(item, fields[name], f"{path}.{name}") if name in fields else [f"{path}.{name}"])
    ]  # fmt: skip


def test_kubernetes_knows_every_field_of_the_pods(documents, cluster):
    pytest.importorskip("kubernetes")
    pods = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    assert [path for pod in pods for path in unknown(pod, "V1PodTemplateSpec")] == []
    claim = documents["PersistentVolumeClaim"]
    assert unknown(claim, "V1PersistentVolumeClaim") == []
    (volume,) = cluster["headGroupSpec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_a_misspelt_field_of_a_pod_is_found():
    pytest.importorskip("kubernetes")
    pod = {"spec": {"containers": [{"name": "a", "imge": "b", "resources": {"limits": {"cpu": 1}}}]}}
    assert unknown(pod, "V1PodTemplateSpec") == [
        ".spec.containers[0].imge", ".spec.containers[0].resources.limits.cpu",
    ]  # fmt: skip


def test_kuberay_knows_every_field_above_the_pods(job, cluster):
    assert set(job) <= RAYJOB
    assert set(cluster) <= CLUSTER
    assert set(cluster["headGroupSpec"]) <= HEAD
    assert all(set(group) <= WORKERS for group in cluster["workerGroupSpecs"])


def test_ray_start_knows_its_options(cluster):
    from ray.scripts.scripts import start

    options = {option for parameter in start.params for option in parameter.opts}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert {f"--{name}" for group in groups for name in group["rayStartParams"]} <= options


def test_drivers_run_on_the_head_and_nothing_trains_there(cluster):
    parameters = cluster["headGroupSpec"]["rayStartParams"]
    assert parameters["num-cpus"] == "0"
    # KubeRay writes it into a shell command as it is
    assert json.loads(*shlex.split(parameters["resources"])) == {"train_driver": 64}


def test_the_token_is_asked_for_and_the_ray_is_the_tested_one(cluster):
    import ray

    assert cluster["authOptions"] == {"mode": "token"}
    minor = ".".join(ray.__version__.split(".")[:2])
    assert cluster["rayVersion"].startswith(f"{minor}.")
    image = (DEPLOY / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{cluster['rayVersion']}-py311-gpu" in image
    assert f"'ray[default,tune,train]=={cluster['rayVersion']}'" in image


def test_the_entrypoint_is_a_command_that_studies_take(job):
    words = shlex.split(job["entrypoint"])
    assert words[:2] == ["python", "studies/asbm_sweep.py"]
    arguments = cli._parser(STUDY).parse_args(words[2:])
    assert arguments.address == "auto"
    assert arguments.output.startswith("/results/")
    assert arguments.data_root == "s3://BUCKET/data"


def test_every_pod_is_told_where_inceptions_weights_are(cluster):
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "SB_INCEPTION", "value": "s3://BUCKET/inception"} in container["env"]


def test_the_slurm_job_is_given_options_that_studies_take():
    """As its header and the README say it."""
    script, readme = (DEPLOY / "slurm.sh").read_text(), (DEPLOY.parent / "README.md").read_text()
    for text in (script, " ".join(readme.split())):
        found = re.search(r"SB_INCEPTION=/SHARED/inception(?:\n#  )? sbatch .*?deploy/slurm.sh (.*?)(?:`|\n)", text)
        assert found
        arguments = cli._parser(STUDY).parse_args(shlex.split(found[1]))
        assert (arguments.dataset, arguments.data_root) == ("cifar10", "/SHARED/data")


def test_the_slurm_script_is_bash():
    checked = subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
