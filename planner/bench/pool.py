"""Worker processes that outlive their cases, and are replaced when they die."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Timer
from typing import IO, Any, TypeVar

import planner

WORKER = Path(__file__).with_name("worker.py")
WARM_UP_SECONDS = 600.0
Job = Mapping[str, Any]
Reply = dict[str, Any]
Item = TypeVar("Item")
Out = TypeVar("Out")


def worker_command(script: Path = WORKER) -> tuple[str, ...]:
    """Return the command of a worker; its own folder must not shadow modules."""
    return (sys.executable, "-P", str(script))


def source_root() -> Path:
    """Return the folder that holds the running ``planner`` package."""
    return Path(planner.__file__).resolve().parent.parent


class Worker:
    """One process; ``ask`` sends a job and waits for its reply.

    Parameters
    ----------
    root
        Folder whose ``planner`` is measured.
    """

    def __init__(self, command: Sequence[str], root: Path) -> None:
        self._command, self._root = tuple(command), root
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    def ask(self, job: Job, seconds: float) -> Reply:
        """Return the reply, or ``timeout`` or ``crashed`` with the last words."""
        process = self._running()
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        late = [False]

        def give_up() -> None:
            late[0] = True
            process.kill()

        timer = Timer(seconds, give_up)
        timer.start()
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if line:
            reply: Reply = json.loads(line)
            return reply
        self.stop()
        if late[0]:
            message = f"gave no answer in {seconds:.0f} s and was stopped"
            return {"outcome": "timeout", "message": message}
        return {"outcome": "crashed", "message": self._last_words()}

    def warm_up(self) -> None:
        """Start the process and let it load what would slow its first case down."""
        self.ask({"warm_up": True}, WARM_UP_SECONDS)

    def stop(self) -> None:
        """End the process, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        process.kill()
        process.wait()

    def close(self) -> None:
        """End the process and drop what it printed."""
        self.stop()
        self._errors.close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        paths = [str(self._root), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        }
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        return self._process

    def _last_words(self) -> str:
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 2000))
        text = self._errors.read().decode(errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return "the worker died: " + (" | ".join(lines[-3:]) or "it said nothing")


def with_workers(
    items: Sequence[Item],
    work: Callable[[Item, Worker], Out],
    *,
    workers: int,
    command: Sequence[str],
    root: Path,
) -> list[Out]:
    """Return ``work(item, worker)`` for all items, in their order.

    Items wait for a free worker; all end with the last item.
    """
    free: SimpleQueue[Worker] = SimpleQueue()
    pool = [Worker(command, root) for _ in range(max(1, min(workers, len(items))))]

    def one(item: Item) -> Out:
        worker = free.get()
        try:
            return work(item, worker)
        finally:
            free.put(worker)

    try:
        # One compiles, the others load what it compiled.
        for worker in pool:
            worker.warm_up()
            free.put(worker)
        with ThreadPoolExecutor(max_workers=len(pool)) as threads:
            return list(threads.map(one, items))
    finally:
        for worker in pool:
            worker.close()
