"""Worker processes that survive their files: one that crashes or hangs is replaced, and only its file is lost."""

import itertools
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Beat = Callable[[], None]
"""What a function calls to say that it has got on; as often as it likes."""

JOBS_HELP = "processes (%(default)s); 0: none but this one, which a file that hangs then holds up"
BEAT_SECONDS = 1.0
# A worker imports before it works; on a busy machine that takes a while and is no fault of the first file.
START_SECONDS = 120.0


@dataclass(frozen=True)
class Failure:
    """Why a job has no result, in one line."""

    reason: str


@dataclass
class _Worker(Generic[Job]):
    process: BaseProcess
    job: Job
    deadline: float


def run_each(
    function: Callable[[Job, Beat], Result], jobs: Iterable[Job], workers: int, timeout: float
) -> Generator[tuple[Job, Result | Failure], None, None]:
    """Call `function(job, beat)` for every job in `workers` processes; yields each job as it ends, in any order.

    Whatever the function raises, a process that dies, and one that has not called `beat` for `timeout` seconds (it is
    killed) make a `Failure` of that job alone. `function`, the jobs and the results are pickled. 0 workers: this
    process does it, in order, and nothing guards it.
    """
    if not workers:
        yield from ((job, _attempt(function, job, _no_beat)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # not forked: the caller may hold threads
    resource_tracker.ensure_running()  # starting it lets signals through that are held back
    waiting = iter(jobs)
    pool: dict[Connection, _Worker[Job]] = {}

    def start(job: Job) -> None:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(function, theirs), daemon=True)
        with _ctrl_c_held_back():
            process.start()
            pool[ours] = _Worker(process, job, time.monotonic() + max(timeout, START_SECONDS))
        theirs.close()  # so that the pipe ends with the process
        ours.send(job)

    def replace(connection: Connection) -> None:
        """Put a new process in the place of one that is over, if there is anything left to do."""
        pool.pop(connection).process.kill()
        connection.close()
        for job in itertools.islice(waiting, 1):
            start(job)

    try:
        for job in itertools.islice(waiting, workers):
            start(job)
        while pool:
            soonest = min(worker.deadline for worker in pool.values())
            for connection in wait(list(pool), max(soonest - time.monotonic(), 0.0)):
                assert isinstance(connection, Connection)
                worker = pool[connection]
                try:
                    message = connection.recv()
                except (EOFError, ConnectionResetError):
                    worker.process.join()
                    replace(connection)
                    yield worker.job, Failure(f"the process died of it (exit status {worker.process.exitcode})")
                    continue
                worker.deadline = time.monotonic() + timeout
                if message is None:  # a beat
                    continue
                done, following = worker.job, next(waiting, None)
                if following is None:
                    replace(connection)
                else:
                    worker.job = following
                    connection.send(following)
                yield done, message
            for connection, worker in list(pool.items()):
                if time.monotonic() > worker.deadline and not connection.poll():
                    replace(connection)
                    yield worker.job, Failure(f"no progress for {timeout:g} s")
    finally:
        for worker in pool.values():
            worker.process.kill()
            worker.process.join()


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Inside, Ctrl-C waits. Processes that start here never hear of it, not even while they import."""
    held_back: list[tuple[int, FrameType | None]] = []
    is_main_thread = threading.current_thread() is threading.main_thread()
    # Blocking it is what processes inherit. It is not enough for us: another thread may take the signal, and Python
    # then interrupts this one all the same.
    handler = signal.signal(signal.SIGINT, lambda *heard: held_back.append(heard)) if is_main_thread else None
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if is_main_thread:
            signal.signal(signal.SIGINT, handler)
        if held_back and callable(handler):
            handler(*held_back[0])


def one_line(error: BaseException) -> str:
    """What an error says, in one line; of more than 1000 characters the middle is left out.

    What was found begins a message of ours and what to do ends it, so neither end is cut.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 1000 else f"{text[:600]} ... {text[-390:]}"


def _serve(function: Callable[[Job, Beat], Result], connection: Connection) -> None:
    """Work until the parent is gone. Ctrl-C is for the parent, which ends us."""
    last_beat = 0.0

    def beat() -> None:
        nonlocal last_beat
        if time.monotonic() - last_beat > BEAT_SECONDS:
            last_beat = time.monotonic()
            connection.send(None)

    beat()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(function, job, beat))


def _attempt(function: Callable[[Job, Beat], Result], job: Job, beat: Beat) -> Result | Failure:
    try:
        return function(job, beat)
    # One file in a hundred thousand can raise anything: the error is recorded, and the other files are unaffected.
    except Exception as error:
        return Failure(one_line(error))


def _no_beat() -> None:
    """Nobody waits for it."""
