"""The symmetric heap in one process and its refusals; many processes are in test_heap_processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perfkit.comm.heap import HeapPool, SymmetricHeap
from perfkit.comm.segments import Process, Segment, Shape, file_name, sweep
from perfkit.errors import HeapError, HeapMemoryError, HeapMismatch, HeapTimeout
from tests.protocol.trials import leftovers


@pytest.fixture
def name() -> Iterator[str]:
    before = set(leftovers())
    yield f"test-{uuid.uuid4()}"
    assert set(leftovers()) <= before


def alone(name: str, slot_bytes: int = 256, **more: object) -> SymmetricHeap:
    return SymmetricHeap.join(name, 0, 1, slot_bytes=slot_bytes, timeout=5, **more)  # type: ignore[arg-type]


def pair(name: str, *sizes: int) -> list[SymmetricHeap | BaseException]:
    """Two ranks as threads of this process."""
    results: list[SymmetricHeap | BaseException] = [RuntimeError("did not run")] * 2

    def join(rank: int) -> None:
        try:
            results[rank] = SymmetricHeap.join(
                name, rank, 2, slot_bytes=sizes[rank], timeout=1, frames=2
            )
        except HeapError as error:
            results[rank] = error

    threads = [threading.Thread(target=join, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_arrays_are_views_of_the_same_memory(name: str) -> None:
    first, second = pair(name, 512, 512)
    assert isinstance(first, SymmetricHeap) and isinstance(second, SymmetricHeap)
    with first, second:
        first.begin()
        second.begin()
        offset = first.allocate(100)
        assert (offset, first.allocate(8)) == (0, 128)
        first.wait_free(1)
        first.array((5, 3), np.float32, rank=1, offset=64)[...] = 7
        assert not second.ready(0, 1)
        first.publish(1, 1)
        second.wait(0, 1)
        assert second.ready(0, 1) and not second.ready(0, 0)
        assert (second.array((15,), np.float32, offset=64) == 7).all()
        first.release()
        assert first.allocate(512) == 0


def test_operations_alternate_between_two_slots(name: str) -> None:
    with alone(name) as heap:
        for step in range(4):
            heap.begin()
            heap.array((4,), np.int64)[...] = step
        assert heap.array((1,), np.int64, epoch=heap.epoch - 1)[0] == 2
        assert heap.array((1,), np.int64)[0] == 3


def test_views_outlive_the_heap(name: str) -> None:
    with alone(name) as heap:
        view = heap.array((4,), np.int32)
        view[:] = 3
    assert (view == 3).all()
    with pytest.raises(HeapError, match="closed"):
        heap.begin()


def test_torch_views(name: str) -> None:
    torch = pytest.importorskip("torch")
    with alone(name) as heap:
        view = heap.tensor((2, 8), torch.bfloat16, offset=64)
        view.fill_(1.5)
        assert heap.array((16,), np.uint16, offset=64)[0] == 0x3FC0
        assert heap.tensor((0, 3), torch.float32).shape == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rank": 2, "ranks": 2}, "rank 2 of 2"),
        ({"rank": -1, "ranks": 2}, "rank -1"),
        ({"ranks": 65}, "64 ranks"),
        ({"frames": 0}, "at least one flag"),
        ({"slot_bytes": -1}, "cannot have the sizes"),
        ({"generation": -1}, "generation"),
    ],
)
def test_sizes_out_of_range_are_refused(name: str, arguments: dict[str, int], message: str) -> None:
    given = {"rank": 0, "ranks": 1, "slot_bytes": 64} | arguments
    with pytest.raises(HeapError, match=message):
        SymmetricHeap.join(name, given.pop("rank"), given.pop("ranks"), timeout=1, **given)  # type: ignore[arg-type]


def test_places_outside_of_the_slot_are_refused(name: str) -> None:
    with alone(name) as heap:
        with pytest.raises(HeapError, match="not within"):
            heap.array((257,))
        with pytest.raises(HeapError, match="not within"):
            heap.array((1,), offset=-1)
        with pytest.raises(HeapError, match="multiple"):
            heap.array((1,), np.float64, offset=4)
        with pytest.raises(HeapError, match="rank 1"):
            heap.array((1,), rank=1)
        with pytest.raises(HeapError, match="shape"):
            heap.array((-1, 4))
        with pytest.raises(HeapMemoryError, match="do not fit"):
            heap.allocate(257)
        with pytest.raises(IndexError):
            heap.wait(0, 1)
        with pytest.raises(IndexError):
            heap.publish(1)


def test_too_little_shared_memory_is_an_error_before_anything_is_made(name: str) -> None:
    with pytest.raises(HeapMemoryError, match="shm-size"):
        alone(name, slot_bytes=1 << 45)


def test_a_small_file_system(name: str) -> None:
    """64 MB as in a container; needs the right to mount, in a namespace of its own."""
    script = (
        'mount -t tmpfs -o size=64m none /mnt && exec "$0" -c \''
        "from pathlib import Path\n"
        "from perfkit.comm.heap import SymmetricHeap\n"
        "from perfkit.errors import HeapMemoryError\n"
        'folder = Path("/mnt")\n'
        'SymmetricHeap.join("a", 0, 1, slot_bytes=1 << 20, folder=folder).close()\n'
        "try:\n"
        '    SymmetricHeap.join("a", 0, 1, slot_bytes=40 << 20, folder=folder)\n'
        "except HeapMemoryError as error:\n"
        '    assert "64.0 MiB" in str(error) and not list(folder.iterdir())\n'
        "    raise SystemExit(42)'"
    )
    command = ["unshare", "-m", "sh", "-c", script, sys.executable]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if "permitted" in done.stderr or "denied" in done.stderr:
        pytest.skip("may not mount here")
    assert done.returncode == 42, done.stderr


def test_ranks_with_other_sizes_are_refused(name: str) -> None:
    results = pair(name, 256, 512)
    assert any(isinstance(result, HeapMismatch) for result in results)
    assert all(isinstance(result, (HeapMismatch, HeapTimeout)) for result in results)


def test_a_missing_rank_is_named(name: str) -> None:
    with pytest.raises(HeapTimeout, match="for rank 1, 2 of 3"):
        SymmetricHeap.join(name, 0, 3, slot_bytes=64, timeout=0.1)


def test_another_generation_is_another_heap(name: str) -> None:
    with alone(name) as old, alone(name, generation=1) as new:
        old.begin()
        old.array((4,))[...] = 1
        new.begin()
        new.array((4,))[...] = 2
        assert (old.array((4,)) == 1).all()


def test_a_taken_rank_is_refused(name: str) -> None:
    taken = Segment.create(Path("/dev/shm"), name, 0, 0, Shape(1, 64))
    try:
        with pytest.raises(HeapError, match="living process"):
            alone(name)
    finally:
        taken.unlink()
    alone(name).close()


def test_a_fork_cannot_use_the_heap(name: str) -> None:
    with alone(name) as heap:
        child = os.fork()
        if child == 0:
            try:
                heap.begin()
            except HeapError as error:
                os._exit(42 if "after forking" in str(error) else 1)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
        assert heap.begin() == 1


def test_segments_of_the_dead_are_swept_and_others_kept(name: str) -> None:
    folder = Path("/dev/shm")
    child = os.fork()
    if child == 0:  # dies between making its segment and meeting its peers
        Segment.create(folder, name, 0, 1, Shape(2, 64))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    living = Segment.create(folder, name, 0, 0, Shape(2, 64))
    left = folder / file_name(name, 0, 1)
    half_made = folder / f"perfkit-{os.getuid()}-new-{child}-1-{Process.current().space}-x"
    half_made.touch()
    try:
        assert left.exists()
        assert {left, half_made} <= set(sweep(folder))
        assert living.path.exists()
    finally:
        living.unlink()


def test_a_process_is_not_taken_for_its_successor() -> None:
    me = Process.current()
    assert not me.dead()
    assert Process(me.pid, me.born + 1, me.space).dead()
    assert not Process(me.pid, me.born + 1, me.space + 1).dead()


def test_the_pool_grows_and_stays_within_its_limit(name: str) -> None:
    pool = HeapPool(name, 0, 1, limit=200_000, timeout=5)
    small = pool.get(1000)
    assert pool.get(4000) is small, "sizes are rounded up"
    middle = pool.get(20_000)
    assert middle is not small and pool.get(1000) is small, "the smallest that fits"
    pool.get(4096)
    big = pool.get(60_000)
    assert pool.bytes <= 200_000 and big.shape.slot_bytes == 65536
    assert pool.get(50_000) is big
    with pytest.raises(HeapMemoryError, match="limit"):
        pool.get(1 << 20)
    assert len(pool) >= 1
    pool.close()
    assert len(pool) == 0 and pool.bytes == 0


def test_the_pool_drops_the_least_recently_used(name: str) -> None:
    pool = HeapPool(name, 0, 1, limit=60_000, timeout=5)
    first = pool.get(4096)
    second = pool.get(8192)
    pool.get(4096)  # the first is the younger now
    pool.get(16384)
    with pytest.raises(HeapError, match="closed"):
        second.begin()
    assert pool.get(4096) is first
    pool.close()
