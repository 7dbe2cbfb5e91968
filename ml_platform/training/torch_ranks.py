"""A network trained by several ranks, any of which may be killed. Imports PyTorch at its top.

The processes are those of ``torch.multiprocessing``. torchrun's agent on top of them listens beyond the loopback
interface and takes the signals of the process that starts it, which here is Dagster's; restarting is a loop.
"""

import json
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException, start_processes

from ml_platform.spec import ModelSpec, PlatformError, Workers
from ml_platform.training.checkpoints import CHECKPOINT_FILE, Checkpoint, read_checkpoint, write_whole
from ml_platform.training.encoding import Floats
from ml_platform.training.torch_fit import Job, Seat, run, within
from ml_platform.training.torch_layers import TabularNetwork, build
from ml_platform.training.workers import Site

_MATRIX, _TRUTHS, _RESULT = "matrix.npy", "truths.npy", "result.npz"


def run_together(
    spec: ModelSpec, job: Job, matrix: Floats, truths: NDArray[np.float32], site: Site
) -> tuple[TabularNetwork, list[float], dict[str, Any]]:
    """What ``torch_fit.run`` answers, from the spec's workers, and facts about them.

    Raises:
        PlatformError: they were started as often as declared, and failed. StateError: another process trains the model.
    """
    job = replace(job, owner=_owner(job, matrix, truths, spec.workers))
    with site.folder_of(spec.name) as folder:
        if spec.compute == "ray":
            from ml_platform.training.ray_network import on_ray

            result, facts = on_ray(spec, job, matrix, truths, folder, site.cluster)
        else:
            result, facts = _on_this_machine(spec, job, matrix, truths, folder)
    with torch.random.fork_rng():
        network = build(job.encoding, job.final.scales, job.settings)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in within(result.arrays, "model/").items()})
    told = {"ranks": spec.workers.count, "threads": spec.workers.threads, "device": "cpu", **facts}
    return network.eval(), list(result.position["losses"]), told


def _owner(job: Job, matrix: Floats, truths: NDArray[np.float32], workers: Workers) -> str:
    """Digest of all that decides the bits that come out."""
    told = [dict(job.settings), job.seed, job.encoding.as_json(), workers.count, workers.threads, torch.__version__]
    digest = sha256(json.dumps(told, sort_keys=True, default=str).encode())
    for array in (matrix, truths, job.searching.rows, job.searching.watched, job.final.rows):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _on_this_machine(
    spec: ModelSpec, job: Job, matrix: Floats, truths: NDArray[np.float32], folder: Path
) -> tuple[Checkpoint, dict[str, int]]:
    """The result, and facts about the workers."""
    with TemporaryDirectory(dir=folder) as draft:
        shared = Path(draft)
        np.save(shared / _MATRIX, matrix)  # each rank maps it instead of holding a copy
        np.save(shared / _TRUTHS, truths)
        for attempt in range(spec.workers.restarts + 1):
            told = (job, spec.workers, folder, shared, attempt)
            started = start_processes(_rank, told, spec.workers.count, join=False, start_method="spawn")
            try:
                while not started.join():
                    pass
            except (ProcessExitedException, ProcessRaisedException) as error:
                failure = error
            else:
                return Checkpoint.from_bytes((shared / _RESULT).read_bytes()), {"restarts": attempt, "machines": 1}
            finally:
                for process in started.processes:
                    process.kill()
    raise PlatformError(
        f"the workers of model {spec.name} were started {spec.workers.restarts + 1} times and failed each time; the "
        f"last time: {failure}; its last checkpoint is kept: train it again when the cause is removed"
    ) from failure


def _rank(rank: int, job: Job, workers: Workers, folder: Path, shared: Path, attempt: int) -> None:
    """What each process does; the first one writes checkpoints and the result."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # or it listens where the machine's name leads
    matrix, truths = (np.load(shared / name, mmap_mode="c", allow_pickle=False) for name in (_MATRIX, _TRUTHS))
    meeting = torch.distributed.FileStore(str(shared / f"ranks-{attempt}"), workers.count)
    seated = Seat(
        rank=rank,
        count=workers.count,
        keep=lambda checkpoint: write_whole(folder / CHECKPOINT_FILE, checkpoint.to_bytes()),
        every=workers.checkpoint_steps,
        begun=read_checkpoint(folder, job.owner),
    )
    result = take_part(job, matrix, truths, seated, meeting, workers.threads)
    if rank == 0:
        write_whole(shared / _RESULT, result.to_bytes())


def take_part(
    job: Job, matrix: Floats, truths: NDArray[np.float32], seat: Seat, meeting: Any, threads: int
) -> Checkpoint:
    """Train as one rank; the trained network as a checkpoint. meeting: the store where ranks find each other."""
    torch.set_num_threads(threads)
    torch.distributed.init_process_group("gloo", store=meeting, rank=seat.rank, world_size=seat.count)
    try:
        network, losses = run(job, matrix, truths, seat)
    finally:
        torch.distributed.destroy_process_group()
    arrays = {f"model/{name}": tensor.numpy() for name, tensor in network.state_dict().items()}
    return Checkpoint(owner=job.owner, position={"losses": losses}, arrays=arrays)
