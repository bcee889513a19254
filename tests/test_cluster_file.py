"""cluster.yaml and cluster.local.yaml as `ray up` would read them; nothing outside this machine is asked."""

import copy
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from sbbridge.study import cli
from studies.asbm_sweep import STUDY
from tests.cluster import commands

ROOT = Path(__file__).parents[1]
FILES = ("cluster.yaml", "cluster.local.yaml")
TOKEN = "~/.ray/auth_token"
REGION = "us-west-2"


def read(name):
    return yaml.safe_load((ROOT / name).read_text())


def validated(cluster):
    """Ray's own preparation and schema; private names, so in this one place."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    return prepared


def starts(cluster, node):
    """The options of a node's `ray start`, read as Ray would read them."""
    from ray.scripts.scripts import start

    (line,) = [line for line in cluster[f"{node}_start_ray_commands"] if "ray start" in line]
    return start.make_context("start", shlex.split(line.partition("ray start ")[2])).params


@pytest.fixture
def aws():
    return read("cluster.yaml")


@pytest.fixture
def local():
    return read("cluster.local.yaml")


@pytest.mark.parametrize("name", FILES)
class TestBoth:
    def test_ray_accepts_it(self, name):
        assert validated(read(name))["head_node_type"] in ("head", "local.cluster.node")

    def test_ray_would_refuse_a_misspelt_key(self, name):
        with pytest.raises(Exception, match="file_mount'"):
            validated(read(name) | {"file_mount": {}})

    def test_the_token_goes_to_every_node(self, name):
        (mount,) = [remote for remote, here in read(name)["file_mounts"].items() if here == TOKEN]
        assert mount.endswith("/.ray/auth_token")

    def test_every_node_has_the_ray_that_is_tested(self, name):
        import ray

        (install,) = [line for line in read(name)["setup_commands"] if "pip install" in line]
        minor = ".".join(ray.__version__.split(".")[:2])
        assert f"ray[default,tune,train]=={minor}." in install

    def test_the_dashboard_listens_on_the_head_alone(self, name):
        assert starts(read(name), "head")["dashboard_host"] == "127.0.0.1"

    def test_workers_join_the_port_that_the_head_opens(self, name):
        cluster = read(name)
        assert starts(cluster, "worker")["address"] == f"$RAY_HEAD_IP:{starts(cluster, 'head')['port']}"

    def test_its_study_command_is_one_that_studies_take_and_names_data_and_results_by_uri(self, name):
        (command,) = [command for command in commands.of_header(name) if "studies/" in command]
        arguments = cli._parser(STUDY).parse_args(commands.study(command))
        assert arguments.address == "auto"
        assert all("://" in place for place in (arguments.data_root, arguments.storage))
        assert re.search(r"\sSB_INCEPTION=\w+://\S+/inception ", command)

    def test_its_commands_are_the_readmes(self, name):
        places = {"cluster.yaml": name} | ({"s3://BUCKET": "file:///SHARED"} if "local" in name else {})
        printed = commands.of_readme()[1:]  # the token is made once, for all clusters
        for here, there in places.items():
            printed = [command.replace(here, there) for command in printed]
        assert commands.of_header(name) == printed

    def test_ray_knows_every_command(self, name):
        """And every option of it."""
        from ray.dashboard.modules.job.cli import job_cli_group
        from ray.scripts.scripts import cli as ray

        for command in commands.of_header(name):
            word, *rest = shlex.split(command)[1:]
            ray.commands[word].make_context(word, [w for w in rest if w != ">"])
            if word == "exec":
                _, _, job, *options = shlex.split(rest[-1].replace("\\\n", " "))
                job_cli_group.commands[job].make_context(job, options)

    def test_every_package_of_the_project_is_installed(self, name):
        """Without extras: a node needs what the driver needs, and none of it is optional."""
        (install,) = [line for line in read(name)["setup_commands"] if "pip install" in line]
        assert re.search(r" -e \S*/sbbridge$", install)


def test_no_work_runs_on_the_head_of_aws_and_trial_drivers_do(aws):
    assert aws["available_node_types"]["head"]["resources"] == {"CPU": 0, "train_driver": 64}


def test_every_container_asks_for_the_token_and_has_the_ray_that_is_tested(aws):
    import ray

    assert "--env RAY_AUTH_MODE=token" in aws["docker"]["run_options"]
    images = {aws["docker"]["image"], aws["docker"]["head_image"]}
    minor = ".".join(ray.__version__.split(".")[:2])
    assert all(re.fullmatch(rf"rayproject/ray:{re.escape(minor)}\.\d+-py311-[cg]pu", image) for image in images)


def test_the_local_head_holds_drivers_and_the_autoscaler_that_starts_machines(local):
    (line,) = [line for line in local["head_start_ray_commands"] if "ray start" in line]
    assert "RAY_enable_autoscaler_v2=0 ray start" in line
    assert json.loads(starts(local, "head")["resources"]) == {"train_driver": 64}
    assert any("RAY_AUTH_MODE=token" in line and "~/.bashrc" in line for line in local["setup_commands"])


# -- EC2


def problems(node_config):
    """What botocore's model of RunInstances does not know or take; its model is a file."""
    from botocore.loaders import Loader
    from botocore.model import ServiceModel
    from botocore.validate import ParamValidator

    model = ServiceModel(Loader().load_service_model("ec2", "service-2"))
    # Ray turns SubnetIds into one SubnetId, and adds the counts
    sent = {name: value for name, value in node_config.items() if name != "SubnetIds"} | {"MinCount": 1, "MaxCount": 1}
    return ParamValidator().validate(sent, model.operation_model("RunInstances").input_shape).generate_report()


@pytest.mark.parametrize("node", ["head", "gpu_spot"])
def test_ec2_knows_every_key(aws, node):
    assert problems(aws["available_node_types"][node]["node_config"]) == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"InstanceTyp": "m6i.2xlarge"}, 'Unknown parameter in input: "InstanceTyp"'),
        ({"InstanceMarketOptions": {"MarketTyp": "spot"}}, 'Unknown parameter in InstanceMarketOptions: "MarketTyp"'),
        ({"BlockDeviceMappings": [{"Ebs": {"VolumeSize": "256 GB"}}]}, "BlockDeviceMappings[0].Ebs.VolumeSize"),
    ],
)
def test_ec2_would_refuse_what_is_wrong(aws, wrong, said):
    assert said in problems(aws["available_node_types"]["head"]["node_config"] | wrong)


@pytest.fixture
def account(monkeypatch, tmp_path):
    """An AWS account in this process, with what the file asks its user to make: what each placeholder stands for."""
    boto3 = pytest.importorskip("boto3")
    from moto import mock_aws

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        ec2 = boto3.client("ec2", REGION)
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=f"{REGION}{zone}")["Subnet"]
            for i, zone in enumerate("abc")
        ]
        # a public one beside them, which Ray would take if it could choose
        ec2.modify_subnet_attribute(SubnetId=subnets[2]["SubnetId"], MapPublicIpOnLaunch={"Value": True})
        group = ec2.create_security_group(GroupName="sbbridge", Description="-", VpcId=vpc)["GroupId"]
        images = ec2.describe_images(Owners=["amazon"])["Images"]
        iam = boto3.client("iam")
        iam.create_instance_profile(InstanceProfileName="PROFILE")
        yield ec2, {
            "SUBNET1": subnets[0]["SubnetId"], "SUBNET2": subnets[1]["SubnetId"], "GROUP": group,
            "AMI": images[0]["ImageId"], "ACCOUNT": "123456789012",
        }  # fmt: skip


def filled(text, values):
    for name, value in values.items():
        text = re.sub(rf"\b{name}\b", value, text)
    return yaml.safe_load(text)


def test_what_ray_would_start_on_aws_has_no_open_port_and_no_public_address(account):
    """Ray's own preparation and RunInstances, in an account that lives in this process."""
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    ec2, values = account
    cluster = bootstrap_aws(validated(filled((ROOT / "cluster.yaml").read_text(), values)))
    provider = AWSNodeProvider(cluster["provider"], cluster["cluster_name"])
    for node in cluster["available_node_types"].values():
        provider.create_node(node["node_config"], {"ray-node-type": "worker"}, 1)
    instances = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert {i["InstanceType"]: i.get("InstanceLifecycle") for i in instances} == {
        "m6i.2xlarge": None, "g5.xlarge": "spot",
    }  # fmt: skip
    assert {g["GroupId"] for i in instances for g in i["SecurityGroups"]} == {values["GROUP"]}
    assert {i["SubnetId"] for i in instances} <= {values["SUBNET1"], values["SUBNET2"]}
    assert not [i for i in instances if i.get("PublicIpAddress")]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert not [g for g in groups for p in g["IpPermissions"] for r in p["IpRanges"] if r["CidrIp"] == "0.0.0.0/0"]
