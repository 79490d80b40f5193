"""Worlds of worker processes, joined by links of a chosen rate.

``namespaces``: each rank has a network namespace of its own, joined by a veth pair to a bridge in
this process's; token buckets (``tc tbf``) limit both directions of each pair. Namespaces die with
the processes in them, so nothing is left behind. The process that calls must itself be in a
namespace made for it (:func:`inside_namespace`). ``paced``: all on the loopback device, slowed
down in the workers. ``loopback``: no limit.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch.distributed as dist

from bench.dsp.stdit import Size

Transport = Literal["namespaces", "paced", "loopback"]
_ROOT = Path(__file__).resolve().parents[2]
_MARK = "BENCH_DSP_NAMESPACE"
_HUB = "10.77.0.254"


class WorldError(Exception):
    """A worker failed, or the links could not be made."""


def _unshare() -> list[str]:
    return ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--map-root-user", "--net"]


def namespaces_available() -> bool:
    """Whether this machine lets us make namespaces with rate-limited links."""
    if not all(shutil.which(tool) for tool in ("unshare", "nsenter", "ip", "tc")):
        return False
    trial = (
        "ip link add try0 type veth peer name try1 && ip link add hub type bridge && "
        "tc qdisc add dev try0 root tbf rate 100mbit burst 64kb latency 100ms"
    )
    done = subprocess.run([*_unshare(), "sh", "-c", trial], capture_output=True, check=False)
    return done.returncode == 0


def inside_namespace() -> bool:
    """Whether :func:`enter_namespace` has started this process."""
    return bool(os.environ.get(_MARK))


def enter_namespace(module: str, arguments: Sequence[str]) -> int:
    """Run ``python -m module arguments`` in a new network namespace; its status."""
    command = [*_unshare(), sys.executable, "-m", module, *arguments]
    return subprocess.run(command, env={**os.environ, _MARK: "1"}, check=False).returncode


def _tool(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WorldError(f"{' '.join(command)}: {done.stderr.strip()}")


@dataclass
class Worker:
    """One rank's process and its channel."""

    process: subprocess.Popen[str]
    rank: int

    def send(self, message: object) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorldError(f"rank {self.rank} is gone") from None

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise WorldError(f"rank {self.rank} ended without an answer")
        return json.loads(line)


class World:
    """Ranks that run tasks together; a context manager, which ends them."""

    def __init__(
        self, ranks: int, size: Size, transport: Transport = "loopback", fake: bool = False
    ) -> None:
        self.ranks, self.size, self.transport = ranks, size, transport
        self._fake = fake  # one process, the last rank of a group that moves nothing
        self.workers: list[Worker] = []
        self._rate: float | None = None

    def __enter__(self) -> World:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        apart = self.transport == "namespaces"
        for rank in range(self.ranks - 1 if self._fake else 0, self.ranks):
            self.workers.append(Worker(self._spawn(apart), rank))
        for worker in self.workers:
            assert worker.process.stdout is not None
            if worker.process.stdout.readline() != "ready\n":
                raise WorldError(f"rank {worker.rank} did not start")
        host = _HUB if apart else "127.0.0.1"
        if apart:
            self._connect()
        store = dist.TCPStore(
            host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=300)
        )
        self._store = store
        cores = len(os.sched_getaffinity(0)) // len(self.workers)
        for worker in self.workers:
            worker.send(
                {
                    "rank": worker.rank,
                    "world": self.ranks,
                    "host": host,
                    "port": store.port,
                    "backend": "fake" if self._fake else "gloo",
                    "threads": max(1, cores),
                    "paced": self.transport == "paced",
                    "size": asdict(self.size),
                }
            )

    def _spawn(self, apart: bool) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bench.dsp.worker"]
        if apart:
            command = ["unshare", "--net", *command]
        device = "eth0" if apart else "lo"
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "GLOO_SOCKET_IFNAME": device, "TORCH_CPP_LOG_LEVEL": "ERROR"},
        )

    def _connect(self) -> None:
        """A bridge here, and a pair from it into each worker's namespace."""
        _tool("ip", "link", "set", "lo", "up")
        if not Path("/proc/self/net/dev").read_text().count("hub:"):
            _tool("ip", "link", "add", "hub", "type", "bridge")
            _tool("ip", "addr", "add", f"{_HUB}/24", "dev", "hub")
        _tool("ip", "link", "set", "hub", "up")
        for worker in self.workers:
            pid = str(worker.process.pid)
            port = f"port{worker.rank}"
            _tool("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", pid)
            _tool("ip", "link", "set", port, "master", "hub", "up")
            inside = ("nsenter", "-t", pid, "-n")
            _tool(*inside, "ip", "addr", "add", f"10.77.0.{worker.rank + 1}/24", "dev", "eth0")
            _tool(*inside, "ip", "link", "set", "eth0", "up")
            _tool(*inside, "ip", "link", "set", "lo", "up")

    def limit(self, rate: float | None) -> None:
        """Limit every link, each direction, to ``rate`` bits per second; None: no limit."""
        self._rate = rate
        if self.transport != "namespaces":
            return
        for worker in self.workers:
            inside = ("nsenter", "-t", str(worker.process.pid), "-n")
            for prefix, device in ((), f"port{worker.rank}"), (inside, "eth0"):
                if rate is None:
                    # Fails where there was no limit.
                    command = [*prefix, "tc", "qdisc", "del", "dev", device, "root"]
                    subprocess.run(command, capture_output=True, check=False)
                    continue
                # What passes at once after a pause: little, or short messages would be free.
                burst = max(16384, int(rate / 8 * 1e-4))
                _tool(
                    *prefix, "tc", "qdisc", "replace", "dev", device, "root", "tbf",
                    "rate", f"{int(rate)}bit", "burst", f"{burst}b", "latency", "400ms",
                )  # fmt: skip

    def run(self, kind: str, **arguments: Any) -> list[Any]:
        """A task on every rank; the answers by rank."""
        rate = self._rate / 8 if self._rate else None
        for worker in self.workers:
            worker.send({"kind": kind, "rate": rate, "arguments": arguments})
        answers = [worker.receive() for worker in self.workers]
        failed = [
            f"rank {worker.rank} failed:\n{answer['error']}"
            for worker, answer in zip(self.workers, answers, strict=True)
            if "error" in answer
        ]
        if failed:
            raise WorldError("\n".join(failed))
        return [answer["result"] for answer in answers]

    def close(self) -> None:
        for worker in self.workers:
            worker.process.kill()
        for worker in self.workers:
            worker.process.wait()
            for channel in (worker.process.stdin, worker.process.stdout):
                if channel is not None:
                    channel.close()
        self.workers.clear()
