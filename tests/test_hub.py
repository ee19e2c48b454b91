"""Transfer from the Hub, against a server of the test's own: whatever goes wrong, what is used is right or refused."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from hub_server import COMMIT, TOKEN, Hub, hub_server
from huggingface_hub import constants, file_download

from vocalsep import weights
from vocalsep.cli import main
from vocalsep.errors import WeightsError
from vocalsep.weights import hub as transfer
from vocalsep.weights import transfer as hub_transfer
from vocalsep.weights.register import HubFile

REPOSITORY = "somebody/choir"
FILE = "choir.safetensors"
CONTENT = safetensors.torch.save({"a": torch.arange(5e4)}, metadata={"config": '{"a": 1}'})
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = safetensors.torch.save({"a": torch.ones(3)}, metadata={"config": "{}"})
ADDRESS = f"{REPOSITORY}@{COMMIT}:{FILE}"
LINUX_ROOT = sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None

ENTRY = {
    "name": "choir",
    "purpose": "estimator",
    "bundled": False,
    "file": FILE,
    "size": len(CONTENT),
    "sha256": SHA256,
    "vocalsep": ">=0.1",
    "publication": "published",
    "hub": {"repository": REPOSITORY, "revision": COMMIT, "file": FILE},
    "found_in": None,
    "licence": "MIT",
    "credit": "the test",
    "source": "the test",
    "card": None,
    "scores": {},
}


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """A Hub with one file, which the manifest knows as "choir"; caches and tokens are the test's own."""
    register = tmp_path / "register.json"
    register.write_text(json.dumps({"schema": 2, "checkpoints": [ENTRY]}))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH", "HF_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    with hub_server() as server:
        server.add(REPOSITORY, FILE, CONTENT)
        values = {
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": server.url,
            "HF_HUB_ETAG_TIMEOUT": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "*",
            "VOCALSEP_HOME": str(tmp_path / "home"),
            "VOCALSEP_MANIFEST": str(register),
            "VOCALSEP_DOWNLOAD_TIMEOUT": "60",
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(hub_transfer, "WAITS", (0.05, 0.05))
        yield server


@pytest.fixture
def alone(hub, monkeypatch) -> Hub:
    """The same Hub where downloads run in this process, as they do where Python cannot be started: ten times faster."""
    monkeypatch.setattr(sys, "executable", "")
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in (constants, file_download):  # versions before 1.0 keep a copy
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", os.devnull)
    return hub


def cached_files(tmp_path: Path) -> list[Path]:
    """Return what a download left in the cache, but for locks, notes, and what some versions keep to go on with."""
    folder = tmp_path / "hf" / "hub"
    places = [path for part in ("blobs", "snapshots") for path in folder.glob(f"models--*/{part}/**/*")]
    return [path for path in places if not path.is_dir() and path.suffix != ".incomplete"]


def loads() -> bool:
    return torch.equal(weights.load("choir").tensors["a"], torch.arange(5e4))


class TestDownload:
    def test_once_and_never_again(self, hub, tmp_path):
        assert loads()
        assert (hub.count("HEAD"), hub.count("GET")) == (2, 1)
        assert sorted(path.read_bytes() == CONTENT for path in cached_files(tmp_path)) == [True, True]
        assert "authorization" not in hub.seen[0].headers
        asked = len(hub.seen)
        assert loads()
        assert len(hub.seen) == asked

    def test_large_files_are_elsewhere_and_the_token_stays_here(self, hub, monkeypatch):
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        hub.token, hub.cdn = TOKEN, True
        assert loads()
        (elsewhere,) = [seen for seen in hub.seen if seen.host == "cdn"]
        assert elsewhere.method == "GET"
        assert "authorization" not in elsewhere.headers
        assert {seen.headers["authorization"] for seen in hub.seen if seen.host == "hub"} == {f"Bearer {TOKEN}"}

    def test_a_stored_token_counts(self, hub, tmp_path):
        hub.token = TOKEN
        (tmp_path / "hf").mkdir()
        (tmp_path / "hf" / "token").write_text(TOKEN)
        assert loads()

    def test_a_renamed_repository(self, alone):
        alone.renamed[REPOSITORY] = "somebody/choirs"
        alone.files["somebody/choirs", COMMIT, FILE] = CONTENT
        assert loads()

    def test_a_busy_server_is_asked_again(self, alone):
        alone.fails("HEAD", "503", times=1)
        alone.fails("GET", "500", times=1)
        assert loads()

    def test_a_server_that_says_when(self, alone):
        alone.fails("HEAD", "429", times=1, Retry_After="1")
        started = time.monotonic()
        assert loads()
        assert time.monotonic() - started >= 1

    def test_a_transfer_that_breaks_off_is_gone_on_with(self, alone):
        content = safetensors.torch.save({"a": torch.zeros(6_000_000)}, metadata={"config": "{}"})
        alone.add(REPOSITORY, "large.safetensors", content)
        alone.fails("GET", "truncate", times=1)
        digest = hashlib.sha256(content).hexdigest()
        assert weights.load(f"{REPOSITORY}@{COMMIT}:large.safetensors#sha256={digest}").config == {}
        # huggingface_hub writes 10 MiB at a time; what it has not written is asked for again.
        assert [seen.headers.get("range") for seen in alone.seen if seen.method == "GET"] == [None, "bytes=10485760-"]

    def test_a_broken_transfer_without_ranges(self, alone):
        alone.ranges = False
        alone.fails("GET", "truncate", times=1)
        assert loads()

    def test_without_a_python_to_start(self, alone):
        assert loads()


class TestWrongContent:
    def test_a_wrong_file_is_fetched_once_more(self, alone):
        alone.fails("GET", "wrong", times=1)
        assert loads()
        assert alone.count("GET") == 2

    def test_a_file_that_stays_wrong(self, alone, tmp_path):
        alone.fails("GET", "wrong")
        with pytest.raises(WeightsError, match=r"gave twice 20\d+ bytes with SHA-256 .*nothing of it is kept"):
            weights.load("choir")
        assert alone.count("GET") == 2
        assert cached_files(tmp_path) == []
        alone.faults.clear()
        assert loads()

    def test_another_size_is_not_even_fetched(self, alone):
        alone.add(REPOSITORY, FILE, OTHER)
        with pytest.raises(WeightsError, match=rf"it has {len(OTHER)} bytes, expected {len(CONTENT)}"):
            weights.load("choir")
        alone.fails("HEAD", "large")
        with pytest.raises(WeightsError, match=r"it has 1099511627776 bytes, expected 536870912 at most"):
            weights.load(ADDRESS)
        assert alone.count("GET") == 0

    @pytest.mark.parametrize("damage", [b"", CONTENT[:-1], CONTENT[:-1] + b"\1"])
    def test_a_corrupt_copy_is_replaced(self, alone, tmp_path, damage):
        assert loads()
        for path in cached_files(tmp_path):
            if not path.is_symlink():
                path.write_bytes(damage)
        assert loads()
        assert alone.count("GET") == 2

    def test_a_corrupt_copy_that_cannot_be_replaced(self, hub, tmp_path, monkeypatch):
        assert loads()
        next(path for path in cached_files(tmp_path) if not path.is_symlink()).write_bytes(OTHER)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set.*; what was there was corrupt and is removed"):
            weights.load("choir")
        assert cached_files(tmp_path) == []


FAILURES = [
    pytest.param("HEAD", "401", {}, r"answers 401.*does not exist, or needs a token; set HF_TOKEN or run", id="401"),
    pytest.param("HEAD", "403", {}, r"answers 403.*needs a token", id="403"),
    pytest.param("HEAD", "404", {"X_Error_Code": "RepoNotFound"}, r"answers 404.*no such repository", id="404"),
    pytest.param("HEAD", "429", {}, r"answers 429, too many requests.*try again later", id="429"),
    pytest.param("HEAD", "429", {"Retry_After": "3600"}, r"answers 429.*try again in 3600 s", id="429 for an hour"),
    pytest.param("HEAD", "500", {}, r"answers 500.*try again later", id="500"),
    pytest.param("HEAD", "hang", {}, r"does not answer .*; check the network", id="no answer"),
    pytest.param("GET", "401", {}, r"answers 401", id="401 for the body"),
    pytest.param("GET", "404", {}, r"answers 404", id="404 for the body"),
    pytest.param("GET", "500", {}, r"answers 500", id="500 for the body"),
]
ENDLESS = [
    pytest.param("429", {"Retry_After": "3600"}, True, id="in an hour"),
    pytest.param("hang", {}, True, id="never"),
    pytest.param("trickle", {}, True, id="half and no more"),
    pytest.param("truncate", {}, False, id="half again and again"),
]


class TestFailures:
    @pytest.mark.parametrize(("method", "kind", "headers", "message"), FAILURES)
    def test_said_in_words_and_nothing_left_broken(self, alone, tmp_path, method, kind, headers, message):
        alone.fails(method, kind, **headers)
        with pytest.raises(WeightsError, match=message):
            weights.load("choir")
        assert cached_files(tmp_path) == []
        alone.faults.clear()
        assert loads()

    @pytest.mark.parametrize(("kind", "headers", "ranges"), ENDLESS)
    def test_what_would_never_end_is_ended(self, hub, tmp_path, monkeypatch, kind, headers, ranges):
        hub.ranges = ranges
        hub.fails("GET", kind, **headers)
        with monkeypatch.context() as patched:
            patched.setenv("VOCALSEP_DOWNLOAD_TIMEOUT", "1.5")
            started = time.monotonic()
            with pytest.raises(
                WeightsError,
                match=r"was not done after 1\.5 s; try again, or set VOCALSEP_D|the connection to \S+ failed",
            ):
                weights.load("choir")
            assert time.monotonic() - started < 1.5 + 20
        assert cached_files(tmp_path) == []
        hub.faults.clear()
        assert loads()

    @pytest.mark.skipif(os.name == "nt", reason="files of a process cannot be limited there")
    def test_a_server_that_sends_more_and_more(self, hub, tmp_path):
        hub.fails("GET", "endless")
        with pytest.raises(WeightsError, match="the server sends more than the size of the file"):
            weights.load("choir")
        assert cached_files(tmp_path) == []
        hub.faults.clear()
        assert loads()

    def test_more_than_everything_of_an_earlier_transfer(self, alone, tmp_path):
        folder = tmp_path / "hf" / "hub" / "models--somebody--choir" / "blobs"
        folder.mkdir(parents=True)
        (folder / f"{SHA256}.incomplete").write_bytes(CONTENT + b"more")  # where versions before 2.0 begin
        assert loads()

    @pytest.mark.parametrize("header", [{"ETag": '"../../../../evil"'}, {"X_Repo_Commit": "../../evil"}])
    def test_a_server_that_names_files_elsewhere(self, alone, tmp_path, header):
        alone.fails("HEAD", "as usual", **header)
        with pytest.raises(WeightsError, match=r"the server calls the content '\.\./.*evil', which is no name"):
            weights.load("choir")
        assert cached_files(tmp_path) == []

    def test_no_network(self, hub, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")  # a port on which nobody listens
            with pytest.raises(WeightsError, match=r"connection to http://127\.0\.0\.1:1 failed .*check the network"):
                weights.load("choir")
        assert loads()

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            (HubFile("nobody/nothing", COMMIT, FILE), "no such repository, revision or file"),
            (HubFile(REPOSITORY, "f" * 40, FILE), "no such repository, revision or file"),
            (HubFile(REPOSITORY, COMMIT, "other.safetensors"), "no such repository, revision or file"),
        ],
    )
    def test_what_does_not_exist(self, alone, changed, reason):
        with pytest.raises(WeightsError, match=reason):
            transfer.download(changed)

    def test_offline(self, hub, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE is set; unset it, or run `vocalsep models download`"):
            weights.load("choir")
        assert hub.seen == []
        monkeypatch.delenv("HF_HUB_OFFLINE")
        assert loads()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert loads()

    def test_a_cache_that_is_none(self, alone, tmp_path, monkeypatch):
        (tmp_path / "taken").write_text("a file")
        with monkeypatch.context() as patched:
            patched.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "taken" / "hub"))
            with pytest.raises(WeightsError, match=r"taken.* cannot be written \(Not a directory\)"):
                weights.load("choir")
        assert loads()

    def test_a_cache_that_cannot_be_read(self, alone, tmp_path):
        (tmp_path / "hf" / "hub" / "models--somebody--choir").mkdir(parents=True)
        (tmp_path / "hf" / "hub" / "models--somebody--choir" / "snapshots").write_text("a file")
        with pytest.raises(WeightsError, match=r"cannot be written"):
            weights.load("choir")

    def test_without_huggingface_hub(self, hub, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(WeightsError, match=r"huggingface_hub cannot be used \(.*install it again"):
            weights.load("choir")

    def test_content_that_repositories_share_is_removed_with_its_links(self, alone, tmp_path):
        assert loads()
        blob = next(path for path in cached_files(tmp_path) if not path.is_symlink())
        shared = tmp_path / "hf" / "hub" / "blobs" / "ab" / "content"
        shared.parent.mkdir(parents=True)
        blob.rename(shared)
        try:
            blob.symlink_to(shared)
        except OSError:
            pytest.skip("links cannot be made here")
        transfer.remove(transfer.cached(HubFile(REPOSITORY, COMMIT, FILE)))
        assert cached_files(tmp_path) == []
        assert not shared.exists()
        assert loads()

    @pytest.mark.parametrize("limit", ["soon", "0", "-1", "nan", "1e9"])
    def test_a_time_limit_that_is_none(self, hub, monkeypatch, limit):
        monkeypatch.setenv("VOCALSEP_DOWNLOAD_TIMEOUT", limit)
        with pytest.raises(WeightsError, match="expected a number of seconds above 0"):
            weights.load("choir")

    def test_the_time_limit_grows_with_the_file(self, monkeypatch):
        monkeypatch.delenv("VOCALSEP_DOWNLOAD_TIMEOUT", raising=False)
        assert transfer.time_limit(50_000_000) == 60 + 500
        assert transfer.time_limit(None) == 60 + 1000


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.skipif(not LINUX_ROOT, reason="only root can mount a small or a read-only file system")
class TestDisks:
    @pytest.mark.filterwarnings("ignore:Not enough free disk space")
    def test_a_full_disk(self, alone, tmp_path):
        with mounted(tmp_path / "hf", "size=100k"):
            with pytest.raises(WeightsError, match=r"cannot be written \(No space left on device\); expected room"):
                weights.load("choir")
            assert cached_files(tmp_path) == []
            subprocess.run(["mount", "-o", "remount,size=10m", tmp_path / "hf"], check=True)
            assert loads()

    def test_a_read_only_cache(self, alone, tmp_path):
        with mounted(tmp_path / "hf", "size=10m,ro"):
            with pytest.raises(WeightsError, match=r"cannot be written \(Read-only file system\).*HF_HOME to name"):
                weights.load("choir")
            subprocess.run(["mount", "-o", "remount,rw", tmp_path / "hf"], check=True)
            assert loads()
            subprocess.run(["mount", "-o", "remount,ro", tmp_path / "hf"], check=True)
            assert loads()


class TestProcesses:
    COMMAND = (sys.executable, "-c", "from vocalsep.cli import main; main()", "models", "download", "choir")

    def test_two_at_once(self, hub, tmp_path):
        running = [subprocess.Popen(self.COMMAND, stdout=subprocess.PIPE) for _ in range(3)]
        assert [process.communicate(timeout=60)[0].decode().split()[:3] for process in running] == [
            ["choir", "is", "in"]
        ] * 3
        assert [process.returncode for process in running] == [0, 0, 0]
        assert {path.read_bytes() for path in cached_files(tmp_path)} == {CONTENT}

    @pytest.mark.skipif(os.name == "nt", reason="signals are those of Unix")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_broken_off(self, hub, number):
        hub.fails("GET", "trickle")
        process = subprocess.Popen(self.COMMAND, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if hub.count("GET"):
                break
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(timeout=10)
        hub.faults.clear()
        assert loads()


class TestBundled:
    def test_bundled_weights_need_nothing_of_the_hub(self):
        code = (
            "import socket, sys\n"
            "def refuse(*_): raise AssertionError('network')\n"
            "socket.socket.connect = socket.getaddrinfo = refuse\n"
            "from vocalsep.model.estimator import load_estimator\n"
            "from vocalsep.f0.crepe import load_crepe\n"
            "from vocalsep.f0.network import load_tracker\n"
            "load_estimator('default'), load_tracker('tracker'), load_crepe('tiny')\n"
            "from vocalsep.cli import main\n"
            "main(['models', 'list'], standalone_mode=False)\n"
            "main(['models', 'download', 'default'], standalone_mode=False)\n"
            "assert not {name.split('.')[0] for name in sys.modules} & {'huggingface_hub', 'httpx2', 'requests'}\n"
        )
        environment = {key: value for key, value in os.environ.items() if key != "VOCALSEP_MANIFEST"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "default is bundled, nothing is to be done" in done.stdout


class TestAddresses:
    def test_unverified_is_said(self, alone):
        with pytest.warns(weights.UnverifiedWeightsWarning, match=f"used unverified: .* it is {SHA256}, and") as caught:
            assert weights.load(ADDRESS).config == {"a": 1}
        assert len(caught) == 1

    def test_trusted_content_needs_no_word(self, alone):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert weights.load(f"{ADDRESS}#sha256={SHA256.upper()}").config == {"a": 1}
            assert weights.fingerprint(f"{ADDRESS}#sha256={SHA256}") == SHA256

    def test_other_content_than_trusted(self, alone, tmp_path):
        with pytest.raises(WeightsError, match=rf"gave twice .*SHA-256 {SHA256}, expected SHA-256 {'0' * 64}"):
            weights.load(f"{ADDRESS}#sha256={'0' * 64}")
        assert cached_files(tmp_path) == []

    def test_a_branch_can_move(self, alone):
        address = f"{REPOSITORY}@main:{FILE}"
        with pytest.warns(weights.UnverifiedWeightsWarning, match="is from 'main', which can be moved"):
            assert weights.load(address).config == {"a": 1}
        alone.add(REPOSITORY, FILE, OTHER, commit="f" * 40)
        with pytest.warns(weights.UnverifiedWeightsWarning, match=hashlib.sha256(OTHER).hexdigest()):
            assert weights.load(address).config == {}
        with (
            pytest.warns(weights.UnverifiedWeightsWarning, match=r":choir\.safetensors is from 'main'"),
        ):
            assert weights.load(f"{address}#sha256={hashlib.sha256(OTHER).hexdigest()}").config == {}

    def test_a_branch_without_a_network_is_what_it_was(self, hub, monkeypatch):
        address = f"{REPOSITORY}@main:{FILE}#sha256={SHA256}"
        with pytest.warns(weights.UnverifiedWeightsWarning):
            weights.load(address)
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.warns(weights.UnverifiedWeightsWarning):
            assert weights.load(address).config == {"a": 1}

    def test_a_file_that_is_no_checkpoint(self, alone):
        alone.add(REPOSITORY, FILE, b"\x80\x04 what a pickle looks like")
        with (
            pytest.warns(weights.UnverifiedWeightsWarning),
            pytest.raises(WeightsError, match="cannot be read as safetensors"),
        ):
            weights.load(ADDRESS)

    def test_the_command_says_it_on_stderr(self, alone):
        result = CliRunner().invoke(main, ["models", "download", ADDRESS])
        assert result.exit_code == 0, result.output
        assert result.stderr.startswith(f"Warning: {ADDRESS} is used unverified")
        assert result.stdout.startswith(f"{ADDRESS} is in ")
        result = CliRunner().invoke(main, ["models", "download", f"{ADDRESS}#sha256={SHA256}"])
        assert (result.exit_code, result.stderr) == (0, "")
