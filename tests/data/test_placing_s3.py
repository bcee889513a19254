"""Data in a bucket, over HTTP: moto's server on loopback."""

import hashlib
import socket
import time

import pytest
import torch

from sbbridge.data import DataError, placing
from sbbridge.data.cifar10 import cifar10
from sbbridge.data.placing import joined, placed
from tests.data.folders import write_cifar10

boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto.server")

REFUSED_IN_S = 30


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No credentials but these, no proxy, no address but loopback."""
    monkeypatch.setenv("SB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(placing, "_checked", set())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": "us-east-1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def server():
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def client(server):
    from botocore.config import Config

    client = boto3.client("s3", endpoint_url=f"http://{server}", config=Config(proxies={}))
    client.create_bucket(Bucket="bucket")
    yield client
    for item in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=item["Key"])
    client.delete_bucket(Bucket="bucket")


def uri(server, path):
    return f"s3://{path}?endpoint_override={server}&scheme=http&region=us-east-1"


def upload(client, folder, prefix):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            client.upload_file(str(path), "bucket", f"{prefix}/{path.relative_to(folder)}")


def test_a_data_set_in_a_bucket_is_that_of_the_folder(server, client, tmp_path, monkeypatch):
    write_cifar10(tmp_path / "root", monkeypatch)
    upload(client, tmp_path / "root", "data")
    for part, other in zip(cifar10(uri(server, "bucket/data")), cifar10(tmp_path / "root"), strict=True):
        assert torch.equal(part.images, other.images)
    client.put_object(Bucket="bucket", Key="data/cifar-10-batches-py/data_batch_4", Body=b"torn")
    placing._checked.clear()
    with pytest.raises(DataError, match=r"s3://bucket/data/cifar-10-batches-py.*: data_batch_4 has the checksum"):
        cifar10(uri(server, "bucket/data"))


def test_checksums_beside_a_file_of_several_chunks_and_a_change_of_it(server, client):
    content = bytes(range(256)) * 20_000
    for body in (content, content[::-1]):
        line = f"{hashlib.sha256(body).hexdigest()}  network.ckpt\n"
        client.put_object(Bucket="bucket", Key="models/network.ckpt", Body=body)
        client.put_object(Bucket="bucket", Key="models/SHA256SUMS", Body=line.encode())
        placing._checked.clear()
        assert placed(uri(server, "bucket/models/network.ckpt")).read_bytes() == body
        time.sleep(1.0)  # what S3 tells of the time is whole seconds
    client.put_object(Bucket="bucket", Key="models/network.ckpt", Body=content[:-1])
    placing._checked.clear()
    with pytest.raises(DataError, match=r"network\.ckpt has the checksum"):
        placed(uri(server, "bucket/models/network.ckpt"))


def test_a_folder_that_a_console_made_is_no_file(server, client):
    client.put_object(Bucket="bucket", Key="data/", Body=b"")
    with pytest.raises(DataError, match=r"s3://bucket/data\?endpoint_override=.*: no file is there$"):
        placed(uri(server, "bucket/data"))
    client.put_object(Bucket="bucket", Key="data/part/one", Body=b"1")
    assert [path.name for path in placed(uri(server, "bucket/data")).rglob("*")] == ["part", "one"]


def test_names_that_lead_out_of_the_folder_are_refused(server, client, tmp_path):
    client.put_object(Bucket="bucket", Key="data/good", Body=b"1")
    client.put_object(Bucket="bucket", Key="data/../../../evil", Body=b"1")
    with pytest.raises(DataError):
        placed(uri(server, "bucket/data"))
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("bucket/data", "no file is there, nor is there bucket/data"),
        ("absent/data", "no file is there, nor is there absent"),
    ],
)
def test_what_is_absent_is_said(path, words, server, client):
    with pytest.raises(DataError, match=rf"s3://{path}/celeba\?endpoint_override=.*: {words}$") as caught:
        placed(joined(uri(server, path), "celeba"))
    assert "\n" not in str(caught.value)


def test_an_end_point_that_does_not_answer_is_said_in_time():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(DataError, match=rf"endpoint_override={address} cannot be read: ") as caught:
            placed(uri(address, "bucket/data"))
        assert time.monotonic() - begun < REFUSED_IN_S
    assert "\n" not in str(caught.value)
