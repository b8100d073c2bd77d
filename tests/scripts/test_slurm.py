"""The Slurm script with stand-ins for Slurm: `srun` starts real processes here and passes signals on, as Slurm does."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.runs import ROOT, losses_of, write_config
from tests.tiny_runs import write_data

SCRIPT = ROOT / "scripts" / "launch" / "slurm.sbatch"
USAGE = "usage: sbatch [OPTIONS] scripts/launch/slurm.sbatch SCRIPT.py"
STAND_INS = {
    # One process a task, each with Slurm's variables; a signal reaches them all, and the highest code counts.
    "srun": """
test "$1" = --kill-on-bad-exit=1 && shift
pids=()
trap 'signalled=yes; kill -USR1 "${pids[@]}"' USR1
trap 'signalled=yes; kill -TERM "${pids[@]}"' TERM
for ((task = 0; task < SLURM_NTASKS; task++)); do
  SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
  pids+=($!)
done
echo $$ > "$STAND_INS/srun.pid"
highest=0
for pid in "${pids[@]}"; do
  while :; do
    signalled=no code=0; wait "$pid" || code=$?
    ((code > 128)) && [[ $signalled == yes ]] || break  # a signal ended the waiting, maybe not the task
  done
  ((code > highest)) && highest=$code
done
exit "$highest"
""",
    "scontrol": """
case "$1" in
  show) printf 'localhost\\nn2\\n' ;;
  requeue) echo "$2" >> "$STAND_INS/requeued" ;;
esac
""",
}
TASK = """
import os, signal, sys, time
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
sys.stdout.write(" ".join([*(os.environ[name] for name in names), *sys.argv[1:]]) + "\\n")  # at once: others write too
sys.stdout.flush()
code = int(sys.argv[1])
if code < 0:
    signal.signal(signal.SIGUSR1, lambda *_: sys.exit(-code))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(-code))
    open(f"ready{os.environ['RANK']}", "w").close()
    time.sleep(60)
sys.exit(code)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where jobs are submitted: with the stand-ins, and a script that ends with the code it is given."""
    for name, text in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "train.py").write_text(TASK)
    return tmp_path


def submit(folder: Path, *words: str, where: Path | None = None, **settings: str) -> subprocess.Popen[str]:
    """Start the job as Slurm does: a copy of the script, elsewhere."""
    ours = ("MASTER_PORT", "OMP_NUM_THREADS", "MAX_RESTARTS")
    environment = {name: text for name, text in os.environ.items() if name not in ours and "SLURM" not in name}
    environment |= {
        "PATH": f"{folder}:{os.environ['PATH']}", "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "",
        "STAND_INS": str(folder), "SLURM_SUBMIT_DIR": str(where or folder), "SLURM_JOB_ID": "123456",
        "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "8", **settings,
    }  # fmt: skip
    copy = Path(shutil.copy(SCRIPT, folder / "slurm_script"))
    return subprocess.Popen(
        ["bash", str(copy), *words], cwd="/", env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(job: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The job's code and what it said."""
    try:
        out, err = job.communicate(timeout=120)
    finally:
        job.kill()
    return job.returncode, out, err


def requeued(folder: Path) -> list[str]:
    path = folder / "requeued"
    return path.read_text().split() if path.exists() else []


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 100
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)


def test_the_shell_accepts_it() -> None:
    for check in [["bash", "-n"]] + ([["shellcheck"]] if shutil.which("shellcheck") else []):
        done = subprocess.run([*check, str(SCRIPT)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    options = {line.removeprefix("#SBATCH ") for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")}
    assert {"--signal=USR1@300", "--requeue", "--open-mode=append"} < options


def test_every_task_gets_its_rank_and_all_arguments(folder: Path) -> None:
    code, out, err = finish(submit(folder, "train.py", "0", "--config", "a b.yaml", "x=[1, 2]"))
    assert (code, err) == (0, "") and requeued(folder) == []
    arguments = "0 --config a b.yaml x=[1, 2]"
    assert sorted(out.splitlines()) == [f"{rank} {rank} 2 localhost 23456 1 {arguments}" for rank in range(2)]


@pytest.mark.parametrize(
    ("code", "restarts", "again"),
    [(75, None, True), (75, "99", True), (75, "100", False), (2, None, False), (1, "3", False)],
)
def test_only_a_saved_run_is_queued_again(folder: Path, code: int, restarts: str | None, again: bool) -> None:
    settings = {"SLURM_RESTART_COUNT": restarts} if restarts else {}
    found, out, err = finish(submit(folder, "train.py", str(code), **settings))
    assert (found, requeued(folder)) == ((0, ["123456"]) if again else (code, []))
    assert ("restarted 100 times already; submit it again" in err) == (code == 75 and not again)
    assert ("slurm.sbatch: saved; queued again" in out) == again


def test_the_bound_on_restarts_is_the_users(folder: Path) -> None:
    code, _, _ = finish(submit(folder, "train.py", "75", MAX_RESTARTS="0"))
    assert (code, requeued(folder)) == (75, [])


def test_the_warning_before_the_end_has_the_run_queued_again(folder: Path) -> None:
    job = submit(folder, "train.py", "-75")
    for name in ("ready0", "ready1", "srun.pid"):
        wait_for(folder / name)
    os.kill(int((folder / "srun.pid").read_text()), signal.SIGUSR1)
    assert finish(job)[0] == 0 and requeued(folder) == ["123456"]


def test_a_cancelled_job_stays_cancelled(folder: Path) -> None:
    """Then the job's own shell is told to end as well, and the run saves all the same."""
    job = submit(folder, "train.py", "-75")
    for name in ("ready0", "ready1", "srun.pid"):
        wait_for(folder / name)
    job.terminate()
    os.kill(int((folder / "srun.pid").read_text()), signal.SIGTERM)
    assert finish(job)[0] == 75 and requeued(folder) == []


@pytest.mark.parametrize(
    ("words", "settings", "error"),
    [
        ((), {}, USAGE),
        (("gone.py",), {}, "slurm.sbatch: gone.py: no such script in "),
        (
            ("train.py", "0"),
            {"SLURM_GPUS_ON_NODE": "4", "SLURM_NTASKS_PER_NODE": "8"},
            "slurm.sbatch: 8 tasks for 4 GPUs on a machine; give sbatch --ntasks-per-node=4",
        ),
    ],
)
def test_what_is_wrong_is_said(folder: Path, words: tuple[str, ...], settings: dict[str, str], error: str) -> None:
    code, out, err = finish(submit(folder, *words, **settings))
    assert (code, out) == (2, "") and err.startswith(error), err


def test_a_run_is_stopped_and_goes_on(folder: Path) -> None:
    """A real training on two tasks: warned in the middle of it, saved, queued again, and then finished."""
    root = write_data(folder / "data", [1] * 8)
    sections = {"train": {"batch_size": 2, "max_epochs": 30, "log_every": 1, "eval_every": 30}}
    words = ("train_retrieval.py", "--config", str(write_config("retrieval", root, **sections)))
    job = submit(folder, *words, where=ROOT)
    wait_for(root / "run" / "metrics.jsonl")
    os.kill(int((folder / "srun.pid").read_text()), signal.SIGUSR1)
    code, _, err = finish(job)
    assert code == 0 and requeued(folder) == ["123456"], err
    before = len(losses_of(root / "run"))
    assert 0 < before < 120
    code, _, err = finish(submit(folder, *words, where=ROOT, SLURM_RESTART_COUNT="1"))
    assert code == 0 and requeued(folder) == ["123456"], err
    assert len(losses_of(root / "run")) == 120
