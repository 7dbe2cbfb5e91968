"""A network trained by ranks on a Ray cluster. Imports PyTorch at its top."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ml_platform.spec import ModelSpec
from ml_platform.training.checkpoints import CHECKPOINT_FILE, Checkpoint, read_checkpoint
from ml_platform.training.encoding import Floats
from ml_platform.training.ray_workers import Address, answers, carried_through, interface_of, keeper
from ml_platform.training.torch_fit import Job, Seat
from ml_platform.training.torch_ranks import take_part


def on_ray(
    spec: ModelSpec, job: Job, matrix: Floats, truths: NDArray[np.float32], folder: Path, address: str
) -> tuple[Checkpoint, dict[str, int]]:
    """The result, and facts about the workers. folder: of this machine, for the checkpoints.

    Raises:
        PlatformError: there is no such cluster, it is too small, or its workers failed as often as declared.
    """

    def work(ray: Any, workers: list[Any], addresses: list[list[Address]]) -> bytes:
        # Once into the store of each machine, where its ranks read them without a copy.
        data = [ray.put(array) for array in (matrix, truths)]
        begun = read_checkpoint(folder, job.owner)
        told = [job, spec.workers.threads, spec.workers.checkpoint_steps, keeper(ray, folder / CHECKPOINT_FILE)]
        kept = ray.put(None if begun is None else begun.to_bytes())
        asked = [
            worker.call.remote(_rank, rank, len(workers), addresses[0][0], kept, *told, *data)
            for rank, worker in enumerate(workers)
        ]
        first: bytes = answers(ray, asked)[0]
        return first

    result, facts = carried_through(spec, address, work)
    return Checkpoint.from_bytes(result), facts


def _rank(
    held: Sequence[socket.socket],
    rank: int,
    count: int,
    meeting: Address,
    kept: bytes | None,
    job: Job,
    threads: int,
    every: int,
    keeper: Any,
    matrix: Floats,
    truths: NDArray[np.float32],
) -> bytes | None:
    """What each worker does; the first one answers the result."""
    import ray

    own = held[0].getsockname()[0]
    os.environ["GLOO_SOCKET_IFNAME"] = interface_of(own)  # or it listens where the machine's name leads
    host, port = meeting
    if rank == 0:
        held[0].listen()
    first = {"is_master": True, "master_listen_fd": held[0].detach()} if rank == 0 else {}
    store = torch.distributed.TCPStore(host, port, count, wait_for_workers=False, **first)
    seat = Seat(
        rank=rank,
        count=count,
        keep=lambda checkpoint: ray.get(keeper.keep.remote(checkpoint.to_bytes())),
        every=every,
        begun=None if kept is None else Checkpoint.from_bytes(kept),
    )
    result = take_part(job, matrix, truths, seat, store, threads)
    return result.to_bytes() if rank == 0 else None
