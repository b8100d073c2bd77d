"""Attacks, really made: nothing from data, configurations or checkpoints runs, calls home, or lets a secret out.

Pickles among annotations are in datasets/annotations/test_plain_pickle.py, those among weights in
engine/test_checkpoint_folder.py, code beside a tokenizer in models/parts/test_tokenizer.py, and the hub's limits in
engine/test_hub.py.
"""

import ast
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from configs.load import load, load_to_evaluate
from configs.schema import RetrievalConfig
from datasets.annotations import manifest
from datasets.annotations.layout import VideoFolder
from datasets.decode import DecodeError, read_video
from engine.checkpoint_folder import read_weights
from tests.integration.runs import ROOT, files_below, start, write_config
from tests.test_layout import ENTRY_SCRIPTS, SOURCES, name_of
from tests.tiny_runs import write_data

SECRETS = {
    "HF_TOKEN": "hf_Xq3vTn7sLw0cRz",
    "WANDB_API_KEY": "9f8e7d6c5b4a39281706",
    "MY_PASSWORD": "correct-horse-9471",
}
OURS = [path for path in (*SOURCES, *ENTRY_SCRIPTS) if not path.is_relative_to(ROOT / "tests")]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A port that nobody is to come to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        yield listening


def assert_nobody_came(server: socket.socket) -> None:
    with pytest.raises(TimeoutError):
        server.accept()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir", "!os.mkdir"])
def test_yaml_makes_nothing_but_data(tmp_path: Path, tag: str) -> None:
    """In a file, on the command line, and in the configuration that lies beside somebody's weights."""
    ran, attack = tmp_path / "ran", f"{tag} [{tmp_path / 'ran'}]"
    good = write_config("retrieval", write_data(tmp_path, [1], real=False))
    bad = tmp_path / "bad.yaml"
    bad.write_text(f"seed: {attack}\n")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.yaml").write_text(f"task: retrieval\nseed: {attack}\n")
    for attempt in (
        lambda: load(RetrievalConfig, bad, []),
        lambda: load(RetrievalConfig, good, [f"seed={attack}"]),
        lambda: load_to_evaluate(RetrievalConfig, None, [f"checkpoint={tmp_path / 'theirs'}"]),
    ):
        with pytest.raises(ValueError, match="could not determine a constructor for the tag"):
            attempt()
    assert not ran.exists()


@pytest.mark.parametrize(
    "content",
    [
        (2**63 - 1).to_bytes(8, "little") + b"{",
        (2**40).to_bytes(8, "little") + b" " * 100,
        b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}',
        b'{"a":{"dtype":"F32","shape":[18446744073709551615,4],"data_offsets":[0,4]}}',
    ],
    ids=["header of 8 EB", "header of 1 TB", "tensor of 4 TB", "size that overflows"],
)
def test_weights_that_say_they_are_enormous_take_no_memory(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(content).to_bytes(8, "little") + content if content.startswith(b"{") else content)
    with pytest.raises(ValueError, match="model.safetensors: is no safetensors file"):
        read_weights(path)


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile 'http://127.0.0.1:{port}/a.mp4'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} TCP/RTP/AVP 96\n",
    ],
    ids=["hls", "concat", "sdp"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".mkv"])
def test_a_video_that_is_a_list_of_addresses_calls_nobody(
    tmp_path: Path, server: socket.socket, playlist: str, suffix: str
) -> None:
    path = tmp_path / f"video{suffix}"
    path.write_text(playlist.format(port=server.getsockname()[1]))
    with pytest.raises(DecodeError):
        read_video(str(path), 32, lambda length: np.zeros(1, np.int64))
    assert_nobody_came(server)


def test_only_a_manifest_of_ours_may_name_an_address(tmp_path: Path, server: socket.socket) -> None:
    """Reading it asks nobody; a public set's annotation file may name files of its folder alone."""
    address = f"http://127.0.0.1:{server.getsockname()[1]}/a.mp4"
    (tmp_path / "captions.jsonl").write_text(json.dumps({"video": address, "caption": "a text"}) + "\n")
    (record,) = manifest.read(tmp_path / "captions.jsonl", tmp_path)
    assert record.video == address
    for name in (address, "s3://bucket/a", "file:///etc/passwd"):
        with pytest.raises(ValueError, match="leaves the folder"):
            VideoFolder(tmp_path).path(name)
    assert_nobody_came(server)


def test_a_run_tells_no_secret_of_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In none of its files and in nothing it prints: a run that ends well, and one that is refused."""
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    root = write_data(tmp_path, [1] * 4)
    assert start("train_retrieval", "--config", write_config("retrieval", root, train={"max_epochs": 1})) == 0
    assert start("train_retrieval", "--config", write_config("retrieval", root, optim={"lr": -1.0})) == 2
    printed = capfd.readouterr()
    assert "step 1/1" in printed.err and "optim.lr" in printed.err
    written = files_below(root / "run")
    assert {"results.json", "metrics.jsonl", "checkpoint_last/random.json"} < written.keys()
    for said in (printed.out.encode(), printed.err.encode(), *written.values()):
        assert not any(secret.encode() in said for secret in SECRETS.values())


def forbidden(source: str) -> list[str]:
    """What in a program's text could run, unpack or fetch what it is given; empty if nothing."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name, named = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        wrong = name in ("eval", "exec", "os.system", "os.popen", "marshal.loads", "torch.hub.load", "yaml.load")
        wrong |= name.startswith(("pickle.load", "urllib.request.", "requests."))
        wrong |= name == "torch.load" and named.get("weights_only") != "True"
        wrong |= name.endswith((".extract", ".extractall", ".unpack_archive"))
        wrong |= name.endswith(".from_pretrained") and named.get("trust_remote_code") != "False"
        wrong |= name.endswith("YAML") and name != "_yaml" and named.get("typ") != "'safe'"
        wrong |= any(named.get(word) == "True" for word in ("shell", "allow_pickle", "trust_remote_code"))
        if wrong:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_no_code_of_ours_runs_or_unpacks_what_it_reads() -> None:
    assert OURS
    found = {name_of(path): forbidden(path.read_text(encoding="utf-8")) for path in OURS}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)", "torch.load(path, weights_only=False)", "pickle.load(file)",
        "np.load(path, allow_pickle=True)",
        "YAML(typ='unsafe')", "YAML()", "subprocess.run(words, shell=True)", "eval(text)", "archive.extractall(folder)",
        "AutoTokenizer.from_pretrained(name)", "urllib.request.urlopen(address)",
    ],
)  # fmt: skip
def test_the_look_at_our_code_sees_what_is_forbidden(line: str) -> None:
    assert len(forbidden(line)) == 1


def test_the_look_at_our_code_knows_what_is_harmless() -> None:
    harmless = (
        "model.eval()",
        "torch.load(p, weights_only=True)",
        "np.load(p)",
        "YAML(typ='safe', pure=True)",
        "_yaml()",
    )
    assert [forbidden(line) for line in harmless] == [[]] * len(harmless)
