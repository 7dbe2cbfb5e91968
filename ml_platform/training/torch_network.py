"""A small neural network with embeddings: PyTorch, stored as an exported graph (pt2)."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import DeclarationError, ModelRefused, ModelSpec
from ml_platform.training.contributions import Contributions
from ml_platform.training.encoding import Encoding, Floats
from ml_platform.training.model import BLOCK, Model, in_blocks, read_schema, stopping_split
from ml_platform.training.training_set import LABEL, QUANTITY
from ml_platform.training.workers import Site

MODEL_FILE = "model.pt2"
DEFAULTS = {
    "hidden": (128, 64),
    "embedding": 8,
    "dropout": 0.1,
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "batch_rows": 1024,
    "epochs": 30,
    "patience": 3,
    "quantity_weight": 0.3,  # of the amount's loss beside the label's, where the task declares a quantity
}


@dataclass(frozen=True, kw_only=True)
class Network(Model):
    """An exported graph that takes ``BLOCK`` encoded rows."""

    estimator: ClassVar[str] = "torch"
    file: ClassVar[str] = MODEL_FILE
    exported: Any
    graph: Any

    def predict_matrix(self, matrix: Floats) -> Floats:
        """P(label = 1), in blocks of a fixed number of rows."""
        return np.ascontiguousarray(self._outputs(matrix)[:, 0])

    def predict_quantity(self, matrix: Floats) -> Floats | None:
        """The truth's amount, if it was learned."""
        outputs = self._outputs(matrix)
        return np.ascontiguousarray(outputs[:, 1]) if outputs.shape[1] > 1 else None

    def _outputs(self, matrix: Floats) -> Floats:
        import torch

        if not len(matrix):
            return np.empty((0, 1 if self.facts.get("quantity_weight") is None else 2))
        with torch.inference_mode(), _threads(1):  # a block is too small to share
            return in_blocks(matrix, lambda block: self.graph(torch.from_numpy(block)).numpy())

    def contributions(self, row: Floats) -> Contributions:
        """Integrated gradients; the weights are read out of the graph."""
        from ml_platform.training.torch_gradients import integrated

        with _threads(1):
            return integrated(self.exported.state_dict, self.encoding, row)

    def weights(self) -> Floats:
        """All parameters of the graph."""
        return np.concatenate([each.detach().numpy().ravel() for each in self.exported.parameters()])

    def _write(self, path: Path) -> None:
        import torch

        torch.export.save(self.exported, path)


def train_network(spec: ModelSpec, rows: pl.DataFrame, *, threads: int, site: Site | None = None) -> Network:
    """Find the number of epochs on the newest rows, then train so many on all of them.

    ``spec.parameters`` overrides ``DEFAULTS``. On a CPU the result repeats, bit for bit, for the same rows, seed and
    number of threads; it is trained on a CUDA device where there is one. By workers, it repeats for their number and
    their threads, whatever machines they stand on and however often they were killed.

    Raises:
        TooFewLabels: too little to fit or to stop on.
        DeclarationError: the spec names a parameter that this estimator does not have.
        PlatformError: workers were started as often as declared, and failed.
    """
    from ml_platform.training.torch_fit import Job, Part, Seat, run
    from ml_platform.training.torch_layers import Scales

    unknown = set(spec.parameters) - set(DEFAULTS)
    if unknown:
        raise DeclarationError(
            f"model {spec.name}: a network has no parameter {', '.join(sorted(unknown))}; known: {', '.join(DEFAULTS)}"
        )
    fit, stop = stopping_split(rows)
    encoding = Encoding.learn(spec, rows)
    matrix, truth = encoding.frame_matrix(rows), _truth(rows)
    settings = {**DEFAULTS, **spec.parameters}

    def scales(chosen: NDArray[np.int64]) -> Scales:
        return Scales.learn(encoding, matrix[chosen], truth[chosen, 1] if truth.shape[1] > 1 else None)

    everything = np.arange(rows.height)
    job = Job(
        settings=settings,
        seed=spec.seed,
        encoding=encoding,
        searching=Part(rows=fit, watched=stop, scales=scales(fit)),
        final=Part(rows=everything, watched=None, scales=scales(everything)),
    )
    if spec.compute == "local":
        with _threads(threads):
            network, losses = run(job, matrix, truth, Seat())
        facts = {"threads": threads, "device": device_name()}
    else:
        from ml_platform.training.torch_ranks import run_together

        network, losses, facts = run_together(spec, job, matrix, truth, site or Site())
    facts |= {"epochs": int(np.argmin(losses)) + 1, "stopping_log_loss": float(min(losses)), "rows": rows.height}
    if truth.shape[1] > 1:
        facts["quantity_weight"] = settings["quantity_weight"]
    return replace(_exported(network, encoding, facts), curves={"stopping_log_loss_by_epoch": losses})


def _truth(rows: pl.DataFrame) -> NDArray[np.float32]:
    """(rows, 1 or 2): label, and amount where the task declares one (NaN where it is missing)."""
    amount = [pl.col(QUANTITY).cast(pl.Float32).fill_null(float("nan"))] if QUANTITY in rows.columns else []
    columns = rows.select(pl.col(LABEL).cast(pl.Float32), *amount)
    return np.ascontiguousarray(columns.to_numpy(writable=True))


def device_name() -> str:
    """Where networks are trained here: ``cpu``, or the CUDA device's name."""
    import torch

    return f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"


def _exported(network: Any, encoding: Encoding, facts: dict[str, Any]) -> Network:
    import torch

    network = network.cpu()
    exported = torch.export.export(network, (torch.zeros(BLOCK, len(encoding.inputs), dtype=torch.float64),))
    # Where the code lay and on which line is no part of the network; the same network is the same file anywhere.
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)
    weights = network.input_weights(len(encoding.categories))
    return Network(
        encoding=encoding,
        facts={**facts, "torch": str(torch.__version__)},
        importances=dict(zip(encoding.inputs, (weights / weights.sum()).tolist(), strict=True)),
        exported=exported,
        graph=exported.module(),
    )


def load_network(folder: Path) -> Network:
    """A saved network, on the CPU.

    Raises:
        ModelRefused: a file is missing, damaged, or asks for a pickle to be opened.
    """
    import torch

    schema = read_schema(folder)
    try:
        _refuse_pickles(folder / MODEL_FILE)
        exported = torch.export.load(folder / MODEL_FILE)
    except (OSError, zipfile.BadZipFile, ValueError, KeyError, RuntimeError) as error:
        raise ModelRefused(f"{folder / MODEL_FILE} is no exported network ({error}); register it again") from error
    return Network(
        encoding=schema["encoding"],
        facts=schema["facts"],
        importances=schema["importances"],
        exported=exported,
        graph=exported.module(),
    )


def _refuse_pickles(archive: Path) -> None:
    """torch.export.load unpickles whatever the archive calls pickled, so that is looked up before it is opened.

    The example inputs are always a checkpoint; PyTorch opens one freely only if opening it as plain tensors failed.
    """
    with zipfile.ZipFile(archive) as opened:
        for name in (record.filename for record in opened.infolist()):
            if "/sample_inputs/" in name:
                safe = _only_tensors(opened.read(name))
            elif "/constants/" not in name and "/weights/" not in name:
                safe = True
            elif name.endswith("_config.json"):
                safe = all(entry["use_pickle"] is False for entry in json.loads(opened.read(name))["config"].values())
            else:
                safe = name.rsplit("/", 1)[1].startswith(("weight_", "tensor_"))
            if not safe:
                raise ModelRefused(f"{archive} holds a pickle ({name}), which can run code; it was not opened")


def _only_tensors(checkpoint: bytes) -> bool:
    import torch

    try:
        torch.load(io.BytesIO(checkpoint), weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError):
        return False
    return True


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """PyTorch computes with so many threads, and as before afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
