"""The launch scripts: their commands as they would be run, and one run on two processes of this machine."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.runs import ROOT, write_config
from tests.ports import free_port
from tests.tiny_runs import write_data

LAUNCH = ROOT / "scripts" / "launch"
SCRIPTS = sorted(LAUNCH.iterdir())
ENTRY = ["train_retrieval.py", "--config", "a b.yaml", "data.root=/d", "x=[1, 2]"]


def launch(name: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a launch script with only `settings` of its own in the environment."""
    ours = ("NPROC", "NNODES", "MASTER_ADDR", "MASTER_PORT", "RUN_ID", "DRY_RUN", "SLURM_SUBMIT_DIR")
    environment = {key: value for key, value in os.environ.items() if key not in ours}
    environment |= {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **settings}
    return subprocess.run(
        ["bash", str(LAUNCH / name), *words], cwd="/", env=environment, capture_output=True, text=True, timeout=240
    )


def command_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    return shlex.split(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_the_shell_accepts_them(path: Path) -> None:
    checks = [["bash", "-n"]] + ([["shellcheck"]] if shutil.which("shellcheck") else [])
    for check in checks:
        done = subprocess.run([*check, str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "set -euo pipefail" in path.read_text()
    assert os.access(path, os.X_OK) or path.suffix == ".sbatch"


def test_one_node_starts_all_processes_with_all_arguments() -> None:
    command = [sys.executable, "-m", "engine.launch", "--nproc_per_node=8", *ENTRY]
    assert command_of(launch("one_node.sh", *ENTRY, NPROC="8", DRY_RUN="1")) == command


def test_nodes_meet_at_the_address() -> None:
    settings = {"NNODES": "4", "MASTER_ADDR": "node0", "NPROC": "8", "DRY_RUN": "1"}
    command = command_of(launch("nodes.sh", *ENTRY, **settings))
    assert command == [
        sys.executable, "-m", "torch.distributed.run", "--nnodes=4", "--nproc_per_node=8", "--rdzv_backend=c10d",
        "--rdzv_endpoint=node0:29500", "--rdzv_id=testa", *ENTRY,
    ]  # fmt: skip
    moved = command_of(launch("nodes.sh", *ENTRY, **settings, MASTER_PORT="1234", RUN_ID="7"))
    assert {"--rdzv_endpoint=node0:1234", "--rdzv_id=7"} == set(moved) - set(command)


@pytest.mark.parametrize(
    ("name", "words", "settings", "error"),
    [
        ("one_node.sh", (), {}, "usage: scripts/launch/one_node.sh SCRIPT.py"),
        ("one_node.sh", ("nothing.py",), {"NPROC": "2"}, f"one_node.sh: nothing.py: no such script in {ROOT}"),
        ("one_node.sh", ("pretrain.py",), {}, "one_node.sh: no GPU here; set NPROC to the number of CPU processes"),
        ("nodes.sh", ("pretrain.py",), {"NNODES": "2"}, "nodes.sh: MASTER_ADDR is not set; "),
        ("nodes.sh", ("pretrain.py",), {"MASTER_ADDR": "a"}, "nodes.sh: NNODES is not set; "),
    ],
)
def test_what_is_missing_is_said(name: str, words: tuple[str, ...], settings: dict[str, str], error: str) -> None:
    done = launch(name, *words, **settings)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(error), done.stderr


@pytest.mark.parametrize("name", ["one_node.sh", "nodes.sh"])
def test_help_is_no_error(name: str) -> None:
    done = launch(name, "--help")
    assert done.returncode == 0 and done.stdout.startswith("usage: ") and "PYTHON" in done.stdout


def test_one_node_trains_on_two_processes(tmp_path: Path) -> None:
    root = write_data(tmp_path, [1] * 5)
    config = write_config("retrieval", root, train={"max_epochs": 1})
    done = launch("one_node.sh", "train_retrieval.py", "--config", str(config), NPROC="2")
    assert done.returncode == 0, done.stderr
    results = json.loads((root / "run" / "results.json").read_text())
    assert results["num_videos"] == 5
    random_states = json.loads((root / "run" / "checkpoint_last" / "random.json").read_text())
    assert len(random_states) == 2  # one a process


def test_two_machines_find_each_other(tmp_path: Path) -> None:
    """Both are this one; every process gets a rank of its own."""
    (tmp_path / "who.py").write_text("import os\nprint('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])\n")
    port = str(free_port())
    environment = {
        **os.environ, "PYTHON": sys.executable, "NNODES": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port,
        "NPROC": "1", "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    command = ["bash", str(LAUNCH / "nodes.sh"), str(tmp_path / "who.py")]
    machines = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        said = [machine.communicate(timeout=240) for machine in machines]
    finally:
        for machine in machines:
            machine.kill()
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert sorted(line for out, _ in said for line in out.splitlines() if line.startswith("rank")) == [
        "rank 0 of 2",
        "rank 1 of 2",
    ]
