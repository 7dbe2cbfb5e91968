"""How a network is trained, by one process or by ranks that share each batch. Imports PyTorch at its top.

Ranks go through the same permutation, each takes its share of every batch, and the gradients are averaged
(DistributedDataParallel; Li et al. 2020), so all hold the same network. A checkpoint holds all that the steps after it
depend on, so a training that goes on from one ends with the same bits as one that was never cut off.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ml_platform.training.checkpoints import Checkpoint
from ml_platform.training.encoding import Encoding, Floats
from ml_platform.training.torch_layers import Scales, TabularNetwork, build, loss_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """Numbers of the rows to learn from and of those to watch (None: for all epochs), and what standardizes them."""

    rows: NDArray[np.int64]
    watched: NDArray[np.int64] | None
    scales: Scales


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained: ``searching`` finds the number of epochs, ``final`` trains so many. owner: digest of it all."""

    settings: Mapping[str, Any]
    seed: int
    encoding: Encoding
    searching: Part
    final: Part
    owner: str = ""


@dataclass(frozen=True, kw_only=True)
class Seat:
    """A rank among ``count``, and what it does for the others.

    keep: what the first one does with a checkpoint, after each ``every`` steps; None: there are none.
    begun: the checkpoint that all go on from.
    """

    rank: int = 0
    count: int = 1
    keep: Callable[[Checkpoint], None] | None = None
    every: int = 1
    begun: Checkpoint | None = None


def run(job: Job, matrix: Floats, truths: NDArray[np.float32], seat: Seat) -> tuple[TabularNetwork, list[float]]:
    """The trained network, and the watched rows' log-loss after each epoch of the search for their number."""
    begun = seat.begun
    losses: list[float] = list(begun.position["losses"]) if begun else []
    if begun is None or begun.position["part"] == 0:
        _Training(job, 0, matrix, truths, seat, losses).carry_through(job.settings["epochs"])
    network = _Training(job, 1, matrix, truths, seat, losses).carry_through(int(np.argmin(losses)) + 1)
    return network, losses


def batches(
    rows: torch.Tensor, batch_rows: int, order: torch.Generator, device: torch.device
) -> tuple[torch.Tensor, ...]:
    """An epoch's batches: numbers of rows, shuffled, in parts of about ``batch_rows``."""
    count = max(1, len(rows) // batch_rows)
    return tuple(rows[torch.randperm(len(rows), generator=order)].to(device).chunk(count))


class _Training:
    """One part of a job on its way."""

    def __init__(
        self,
        job: Job,
        number: int,
        matrix: Floats,
        truths: NDArray[np.float32],
        seat: Seat,
        losses: list[float],
    ):
        self.job, self.number, self.seat, self.losses = job, number, seat, losses
        self.part = job.final if number else job.searching
        # Ranks compute on the processor; alone, it is done on a GPU where there is one.
        alone_on_gpu = seat.keep is None and seat.count == 1 and torch.cuda.is_available()
        self.device = torch.device("cuda" if alone_on_gpu else "cpu")
        self.inputs = torch.from_numpy(matrix).to(self.device)
        self.truth = torch.from_numpy(truths).to(self.device)
        self.rows = torch.tensor(self.part.rows)

    def carry_through(self, epochs: int) -> TabularNetwork:
        """The network after so many epochs, or when the watched rows' loss gets no better."""
        settings = self.job.settings
        with torch.random.fork_rng():  # the process's own random state stays as it was
            torch.manual_seed(self.job.seed)
            network: TabularNetwork = build(self.job.encoding, self.part.scales, settings).to(self.device)
            self.network = network
            self.optimizer = torch.optim.AdamW(
                self.network.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
            )
            # One order of the rows for all ranks, and other units dropped in each.
            self.order = torch.default_generator
            if self.seat.count > 1:
                self.order = torch.Generator().manual_seed(self.job.seed)
                torch.manual_seed(self.job.seed + 1 + self.seat.rank)
            self.learner = _learner(self.network, self.seat)
            epoch, step, steps = self._restored()
            while epoch < epochs:
                steps = self._through(epoch, step, steps)
                epoch, step = epoch + 1, 0
                if self.part.watched is not None:
                    self.losses.append(_from_the_first(self._watched_loss() if self.seat.rank == 0 else 0.0, self.seat))
                    if len(self.losses) - 1 - int(np.argmin(self.losses)) >= settings["patience"]:
                        break
        network.eval()
        return network

    def _through(self, epoch: int, begin: int, steps: int) -> int:
        """An epoch's steps from ``begin`` on; how many there were in all."""
        self.network.train()
        drawn = self.order.get_state()
        shuffled = batches(self.rows, self.job.settings["batch_rows"], self.order, self.device)
        if begin and self.seat.begun is not None:
            torch.set_rng_state(torch.from_numpy(self.seat.begun.arrays["rng"][self.seat.rank]))
        for step, batch in enumerate(shuffled[begin:], begin + 1):
            self._step(batch)
            steps += 1
            if self.seat.keep is not None and steps % self.seat.every == 0:
                self._keep(epoch, step, steps, drawn)
        return steps

    def _step(self, batch: torch.Tensor) -> None:
        rank, count = self.seat.rank, self.seat.count
        # A batch with fewer rows than ranks is too small to share.
        mine = batch[rank::count] if len(batch) >= count else batch
        share = len(mine) * count / len(batch) if len(batch) >= count else 1.0
        self.optimizer.zero_grad()
        outputs = self.learner(self.inputs[mine])
        loss = loss_of(outputs, self.truth[mine], self.network.amounts, self.job.settings["quantity_weight"])
        (loss * share).backward()
        self.optimizer.step()

    def _watched_loss(self) -> float:
        watched = torch.tensor(self.part.watched)
        with torch.inference_mode():
            self.network.eval()
            logits = self.network.outputs(self.inputs[watched.to(self.device)])[:, 0]
            labels = self.truth[watched.to(self.device), 0]
            return float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))

    def _keep(self, epoch: int, step: int, steps: int, drawn: torch.Tensor) -> None:
        states = _gathered(torch.get_rng_state(), self.seat)
        if self.seat.rank or self.seat.keep is None:
            return
        arrays = {"order": drawn.numpy(), "rng": torch.stack(states).numpy()}
        arrays |= {f"model/{name}": tensor.numpy() for name, tensor in self.network.state_dict().items()}
        moments = self.optimizer.state_dict()["state"]
        arrays |= {f"optimizer/{n}/{key}": kept[key].numpy() for n, kept in moments.items() for key in kept}
        position = {"part": self.number, "epoch": epoch, "step": step, "steps": steps, "losses": list(self.losses)}
        self.seat.keep(Checkpoint(owner=self.job.owner, position=position, arrays=arrays))

    def _restored(self) -> tuple[int, int, int]:
        """Epoch, step in it and steps in all at which the training goes on."""
        begun = self.seat.begun
        if begun is None or begun.position["part"] != self.number:
            return 0, 0, 0
        tensors = {name: torch.from_numpy(array) for name, array in begun.arrays.items()}
        self.network.load_state_dict(within(tensors, "model/"))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in within(tensors, "optimizer/").items():
            number, key = name.split("/")
            moments.setdefault(int(number), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.order.set_state(tensors["order"])
        return begun.position["epoch"], begun.position["step"], begun.position["steps"]


def within(named: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What is named so, without the prefix."""
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


class _Outputs(torch.nn.Module):  # type: ignore[misc]  # mypy is told to skip torch
    """What is trained: the outputs before they become probabilities."""

    def __init__(self, network: TabularNetwork):
        super().__init__()
        self.network = network

    def forward(self, matrix: torch.Tensor) -> torch.Tensor:
        return self.network.outputs(matrix)


def _learner(network: TabularNetwork, seat: Seat) -> Any:
    if seat.count == 1:
        return network.outputs
    from torch.nn.parallel import DistributedDataParallel

    # The buffers are constants.
    return DistributedDataParallel(_Outputs(network), forward_sync_buffers=False)


def _gathered(state: torch.Tensor, seat: Seat) -> list[torch.Tensor]:
    if seat.count == 1:
        return [state]
    states = [torch.empty_like(state) for _ in range(seat.count)]
    torch.distributed.all_gather(states, state)
    return states


def _from_the_first(value: float, seat: Seat) -> float:
    """The first rank's value: all stop after the same epoch, whatever machine each computes on."""
    if seat.count == 1:
        return value
    told = torch.tensor([value], dtype=torch.float64)
    torch.distributed.broadcast(told, src=0)
    return float(told)
