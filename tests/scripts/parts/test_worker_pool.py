import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from scripts.parts.worker_pool import START_SECONDS, Beat, Failure, one_line, run_each
from tests.forked import ROOT


def act(job: str, beat: Beat) -> str:
    match job:
        case "die":
            os._exit(3)
        case "hang":
            time.sleep(3600)
        case "raise":
            raise KeyError("two\nlines")
        case "slow":
            for _ in range(12):
                time.sleep(0.5)
                beat()
    return f"{job} done"


def test_the_advice_at_the_end_of_an_error_is_never_cut() -> None:
    found, advice = f"{'folder/' * 60}model: holds nothing", "fetch it with the command that the page of clusters names"
    assert one_line(ValueError(f"{found};\n  {advice}")) == f"{found}; {advice}"
    long = one_line(ValueError(f"{found}{' x' * 5000}; {advice}"))
    assert len(long) < 1000 and long.startswith(found) and long.endswith(advice) and " ... " in long
    assert one_line(KeyError()) == "KeyError"


def write_process_id(job: str, beat: Beat) -> int:
    Path(job).write_text(str(os.getpid()))
    time.sleep(3600)
    return 0


def test_every_job_has_its_own_end_whatever_the_others_do() -> None:
    # "slow" takes 6 s and says every one that it lives; a timeout of 5 s is for those that do not.
    jobs = ["slow", "a", "die", "b", "hang", "raise", "c"]
    begun = time.monotonic()
    results = dict(run_each(act, jobs, workers=2, timeout=5.0))
    assert time.monotonic() - begun < START_SECONDS, "what hangs is given up by the timeout"
    assert results == {
        "slow": "slow done",
        "a": "a done",
        "b": "b done",
        "c": "c done",
        "die": Failure("the process died of it (exit status 3)"),
        "hang": Failure("no progress for 5 s"),
        "raise": Failure("'two\\nlines'"),
    }


def test_no_jobs_need_no_workers() -> None:
    assert list(run_each(act, [], workers=4, timeout=1)) == []


def test_workers_end_with_their_caller(tmp_path: Path) -> None:
    # The second job is the one that is under way when the caller has had enough.
    path = tmp_path / "id"
    results = run_each(act_or_wait, ["a", str(path)], workers=1, timeout=60)
    assert next(results) == ("a", "a done")
    while not path.exists() or not path.read_text():
        time.sleep(0.01)
    results.close()
    assert not Path(f"/proc/{path.read_text()}").exists()


def act_or_wait(job: str, beat: Beat) -> str | int:
    return act(job, beat) if job == "a" else write_process_id(job, beat)


def test_ctrl_c_ends_the_workers_and_none_of_them_says_a_word(tmp_path: Path) -> None:
    """In a terminal they all hear of it, here while they still import."""
    jobs = [str(tmp_path / "a"), str(tmp_path / "b")]
    code = (
        "from scripts.parts.worker_pool import run_each\n"
        "from tests.scripts.parts.test_worker_pool import write_process_id\n"
        f"list(run_each(write_process_id, {jobs}, workers=2, timeout=600))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while len(workers := children.read_text().split()) < 3:  # with multiprocessing's own
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=100)
    assert (process.returncode, said) == (130, "-c: ended by Ctrl-C\n")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers[1:])
