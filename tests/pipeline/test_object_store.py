"""Run directory and pool on a server that speaks S3: the result is that of a local disk, also after kills."""

from __future__ import annotations

import json
import pickle
import subprocess
import time
from pathlib import Path

import psutil
import pyarrow.fs as pafs
import pytest
import tomli_w
from safetensors.numpy import load

from tests.faulty import BUSY, KINDS, MANY, REFUSED, FaultyProxy
from tests.pipeline.conftest import Simulate, selected_of, simulated_values
from tests.pipeline.processes import ROOT, RUN_SECONDS, S3_KEY, Quickstart, call, run_here
from tests.pipeline.test_resume import EXACT, files_of
from tests.s3 import Bucket
from tests.s3 import bucket as bucket  # fixtures
from tests.s3 import server as server
from zpd_ray.at_work import at_work
from zpd_ray.config_file import validate
from zpd_ray.errors import ZpdError
from zpd_ray.pipeline.commands import perform
from zpd_ray.pipeline.train.job import SNAPSHOT
from zpd_ray.report.live import Look
from zpd_ray.report.live.look import KILLED, NOT_BEGUN, RUNNING, SIGNS, STOPPED
from zpd_ray.rundir import Run, Store
from zpd_ray.rundir.begin import check_inputs
from zpd_ray.rundir.layout import LOCK, PROGRESS, RAY_TRAIN
from zpd_ray.rundir.progress import REMOTE_SECONDS, Recorder
from zpd_ray.rundir.records import add_event, load_events


def assert_no_credentials(bucket: Bucket, name: str, *texts: str) -> None:
    contents = bucket.contents(name)
    assert {path.rpartition("/")[2] for path in contents} >= {"config.toml", "manifest.json"}
    for secret in S3_KEY.values():
        assert not [path for path, content in contents.items() if secret.encode() in content]
        assert not [text for text in texts if secret in text]


# --- the store ---


def test_files_come_back_as_they_went(bucket: Bucket, tmp_path: Path) -> None:
    store = Store(bucket.uri("store"))
    assert not store.exists("x.json")
    assert store.names("pool") == store.entries("") == load_events(store) == []
    store.write_json("x.json", {"a": 1})
    add_event(store, "one", None)
    add_event(store, "two", None)
    (tmp_path / "model/deep").mkdir(parents=True)
    (tmp_path / "model/deep/w").write_bytes(b"weights")
    store.write_bytes("stages/00/adapter/stale", b"")
    store.upload(str(tmp_path / "model"), "stages/00/adapter")
    copy = Path(store.local_copy("stages/00/adapter", str(tmp_path / "copies")))
    assert store.read_json("x.json") == {"a": 1}
    assert [event.step for event in load_events(store)] == ["one", "two"]
    assert [(p.name, p.read_bytes()) for p in copy.rglob("*") if p.is_file()] == [("w", b"weights")]
    store.remove("stages")
    assert store.entries("") == ["events.jsonl", "x.json"]


def test_a_run_in_a_bucket_is_watched_by_its_record(bucket: Bucket) -> None:
    """Where no lock can be seen: one that is killed is silent."""
    store, look = Store(bucket.uri("watched")), Look(bucket.uri("watched"))
    assert look.now().state == NOT_BEGUN
    store.write_bytes(LOCK, b"")  # as without the extra 'object-store'
    with at_work.step("ingest", None), Recorder(store, "run"):
        live, record = look.now(), store.read_json(PROGRESS)
    assert (live.state, [each.step for each in live.doing]) == (RUNNING, ["ingest"])
    assert look.now().state == STOPPED
    store.write_json(PROGRESS, record | {"at": record["at"] - SIGNS * REMOTE_SECONDS})
    assert look.now().state == KILLED


def test_a_busy_store_is_asked_again_until_it_has_time(bucket: Bucket) -> None:
    content = bytes(range(256)) * 400
    with FaultyProxy(bucket.address, 0.25, 20, (MANY, *KINDS)).serving() as proxy:
        store = pickle.loads(pickle.dumps(Store(Bucket(proxy.address).uri("busy"))))
        for number in range(8):
            store.write_bytes(f"deep/{number}", content)
            assert store.read_bytes(f"deep/{number}") == content
            assert store.names("deep") == [str(each) for each in range(number + 1)]
        store.remove("deep")
        assert not store.exists("deep")
        faults = proxy.faults
    assert faults.total() >= 8
    assert len(faults) >= 5, faults


def test_a_filesystem_that_another_process_is_given_is_as_patient(bucket: Bucket) -> None:
    """Ray Train sends it to its workers."""
    with FaultyProxy(bucket.address, 1.0, 3, [BUSY]).serving() as proxy:
        fs = pickle.loads(pickle.dumps(Store(Bucket(proxy.address).uri("sent")).fs))
        assert not fs.get_file_info("bucket/sent").is_file
    assert proxy.faults.total() == 3  # at which pyarrow's own copy gives up


def test_a_refusal_is_told_at_once(bucket: Bucket) -> None:
    with FaultyProxy(bucket.address, 1.0, 99, [REFUSED]).serving() as proxy:
        with pytest.raises(ZpdError, match=r"cannot write bucket/mine/x: .*ACCESS_DENIED"):
            Store(Bucket(proxy.address).uri("mine")).write_bytes("x", b"")
        assert proxy.seen <= 2


def test_credentials_in_a_uri_are_refused_and_not_shown(bucket: Bucket) -> None:
    key, secret = S3_KEY.values()
    uri = bucket.uri("store").replace("s3://", f"s3://{key}:{secret}@")
    with pytest.raises(ZpdError, match="give them in the environment") as refused:
        Store(uri)
    assert secret not in str(refused.value)


# --- runs ---


def test_pool_and_run_on_the_server_select_the_same_as_on_a_disk(
    bucket: Bucket, simulate: Simulate, tmp_path: Path
) -> None:
    _, local = simulate(n=400, stages=1)
    pool, pool_uri = tmp_path / "pool.jsonl", bucket.uri("data/*.jsonl")
    fs, place = pafs.FileSystem.from_uri(bucket.uri("data"))
    with fs.open_output_stream(f"{place}/pool.jsonl") as stream:
        stream.write(pool.read_bytes())
    values = simulated_values(
        tmp_path, stages=1, report=True, output=bucket.uri("simulated"), pool={"path": pool_uri}
    )
    config = tmp_path / "run.toml"
    config.write_text(tomli_w.dumps(values))
    done = run_here("run", config)
    remote = Store(bucket.uri("simulated"))
    ours, theirs = (selected_of(store) for store in (remote, local))
    columns = [name for name in theirs.column_names if name != "source_file"]
    assert ours.num_rows == 40
    assert ours.select(columns).equals(theirs.select(columns))
    assert b"40 of them that were selected" in remote.read_bytes("report.html")
    assert_no_credentials(bucket, "simulated", done.stdout, done.stderr)


def test_a_pool_inside_the_run_directory_is_refused(bucket: Bucket, tmp_path: Path) -> None:
    """Though the options behind the URIs stand between the one's name and the other's."""
    fs, place = pafs.FileSystem.from_uri(bucket.uri("inside"))
    with fs.open_output_stream(f"{place}/pool.jsonl") as stream:
        stream.write(b'{"prompt": "1 + 1", "response": "2", "answer": "2"}\n')
    values = simulated_values(tmp_path, n=1, output=bucket.uri("inside"))
    config = validate(values | {"pool": {"path": bucket.uri("inside/pool.jsonl")}})
    with pytest.raises(ZpdError, match="lies inside the run directory s3://bucket/inside, whose files"):
        check_inputs(Run(config, Store(config.output)))


def _value(quickstart: Quickstart, key: str) -> str:
    [value] = [each.partition("=")[2] for each in quickstart.overrides if each.startswith(f"{key}=")]
    return value


# What says when and where, rather than what came out.
OF_THE_MOMENT = (".zpd-ray.lock", "config.toml", "events.jsonl", "progress.json")


@pytest.mark.nightly
def test_fifty_faults_of_the_store_leave_the_bytes_of_a_run_without(
    local_ray: None, bucket: Bucket, tmp_path: Path
) -> None:
    """Pool, run directory and lock are reached through a server that is busy, slow, and hangs up."""
    given = simulated_values(tmp_path, n=3000, stages=3)
    fs, place = pafs.FileSystem.from_uri(bucket.uri("both"))
    with fs.open_output_stream(f"{place}/pool.jsonl") as stream:
        stream.write((tmp_path / "pool.jsonl").read_bytes())

    def results(reached: Bucket, output: str) -> dict[str, bytes]:
        pool = given["pool"] | {"path": reached.uri("both/pool.jsonl")}
        perform("run", validate(given | {"output": reached.uri(output), "pool": pool}))
        found = {path.partition(f"/{output}/")[2]: each for path, each in bucket.contents(output).items()}
        return {name: each for name, each in found.items() if name not in OF_THE_MOMENT}

    calm = results(bucket, "calm")
    with FaultyProxy(bucket.address, 0.06, 50).serving() as proxy:
        faulty = results(Bucket(proxy.address), "faulty")
        assert proxy.faults.total() == 50, (proxy.seen, proxy.faults)
        assert set(proxy.faults) == set(KINDS)
    assert calm.keys() == faulty.keys()
    assert len([name for name in calm if name.startswith("stages/02/")]) > 10
    assert not [name for name in calm if calm[name] != faulty[name]]


def kill_at(arguments: list[str], store: Store, name: str) -> list[psutil.Process]:
    """Start the command, and SIGKILL it once ``name`` is in the run directory; what it leaves to fate."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    deadline = time.monotonic() + RUN_SECONDS
    while not store.exists(name):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"{name} did not appear"
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    return children


@pytest.mark.nightly
def test_a_model_in_a_bucket_is_measured_and_trained_as_one_in_a_directory(
    bucket: Bucket, quickstart: Quickstart, tmp_path: Path
) -> None:
    model, place = _value(quickstart, "model.path"), bucket.uri("model")
    fs, base = pafs.FileSystem.from_uri(place)
    pafs.copy_files(model, base, pafs.LocalFileSystem(), fs)
    ours = tmp_path / "ours"
    run_here("train", quickstart.config, *quickstart.overrides, f"model.path={place}", f"output={ours}")
    for pattern in ("measurements/answers/*.parquet", "chosen/*.parquet", "adapter/*.safetensors"):
        theirs = files_of(quickstart.output, f"stages/00/{pattern}")
        assert theirs, pattern
        for name, path in theirs.items():
            assert (ours / name).read_bytes() == path.read_bytes(), name
    told = json.loads((ours / "stages/00/adapter/adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == "s3://bucket/model"


@pytest.mark.slow
def test_training_on_the_server_with_two_kills_gives_the_bytes_of_a_local_run(
    bucket: Bucket, quickstart: Quickstart
) -> None:
    uri = bucket.uri("trained")
    store, arguments = Store(uri), quickstart.command(uri)  # type: ignore[arg-type]
    left = kill_at(arguments, store, "stages/00/measurements/answers")
    assert not store.exists("stages/00/measured.json"), "killed too late to say anything"
    left += kill_at(arguments, store, f"{RAY_TRAIN}/{SNAPSHOT}")
    assert not store.exists("stages/00/train.json"), "killed too late to say anything"
    done = call(arguments)
    assert done.returncode == 0, done.stderr
    for pattern in EXACT:
        theirs = files_of(quickstart.output, pattern)
        assert theirs
        for name, path in theirs.items():
            assert store.read_bytes(name) == path.read_bytes(), name
    for stage in ("00", "01"):
        name = f"stages/{stage}/adapter/adapter_model.safetensors"
        ours, theirs = load(store.read_bytes(name)), load((quickstart.output / name).read_bytes())
        assert ours.keys() == theirs.keys()
        assert all((ours[key] == theirs[key]).all() for key in theirs)
    assert_no_credentials(bucket, "trained", done.stdout, done.stderr)
    assert not psutil.wait_procs(left, timeout=60)[1], "a killed run leaves processes behind"
