"""A small neural network with embeddings: PyTorch, stored as an exported graph (pt2)."""

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


def train_network(spec: ModelSpec, rows: pl.DataFrame, *, threads: int) -> Network:
    """Find the number of epochs on the newest rows, then train so many on all of them.

    ``spec.parameters`` overrides ``DEFAULTS``. On a CPU the result repeats, bit for bit, for the same rows, seed and
    number of threads; it is trained on a CUDA device where there is one.

    Raises:
        TooFewLabels: too little to fit or to stop on.
        DeclarationError: the spec names a parameter that this estimator does not have.
    """
    unknown = set(spec.parameters) - set(DEFAULTS)
    if unknown:
        raise DeclarationError(
            f"model {spec.name}: a network has no parameter {', '.join(sorted(unknown))}; known: {', '.join(DEFAULTS)}"
        )
    fit, stop = stopping_split(rows)
    encoding = Encoding.learn(spec, rows)
    matrix, truth = encoding.frame_matrix(rows), _truth(rows)
    settings = {**DEFAULTS, **spec.parameters}
    with _threads(threads):
        losses = _fit(settings, spec.seed, encoding, matrix[fit], truth[fit], (matrix[stop], truth[stop]))[1]
        epochs = int(np.argmin(losses)) + 1
        network, _ = _fit({**settings, "epochs": epochs}, spec.seed, encoding, matrix, truth, None)
        facts = {"epochs": epochs, "stopping_log_loss": float(min(losses)), "rows": rows.height, "threads": threads}
        if truth.shape[1] > 1:
            facts["quantity_weight"] = settings["quantity_weight"]
        return _exported(network, encoding, facts)


def _truth(rows: pl.DataFrame) -> NDArray[np.float32]:
    """(rows, 1 or 2): label, and amount where the task declares one (NaN where it is missing)."""
    amount = [pl.col(QUANTITY).cast(pl.Float32).fill_null(float("nan"))] if QUANTITY in rows.columns else []
    columns = rows.select(pl.col(LABEL).cast(pl.Float32), *amount)
    return np.ascontiguousarray(columns.to_numpy(writable=True))


def _fit(
    settings: dict[str, Any],
    seed: int,
    encoding: Encoding,
    matrix: Floats,
    truths: NDArray[np.float32],
    watched: tuple[Floats, NDArray[np.float32]] | None,
) -> tuple[Any, list[float]]:
    """The network after its epochs, and the watched rows' log-loss after each; stops when it gets no better."""
    import torch

    from ml_platform.training.torch_layers import build, loss_of

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():  # the process's own random state stays as it was
        torch.manual_seed(seed)
        network = build(encoding, matrix, truths[:, 1] if truths.shape[1] > 1 else None, settings).to(device)
        inputs, truth = torch.from_numpy(matrix).to(device), torch.from_numpy(truths).to(device)
        batches = max(1, len(truths) // settings["batch_rows"])
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
        )
        losses: list[float] = []
        for _ in range(settings["epochs"]):
            network.train()
            for chosen in torch.randperm(len(truths)).to(device).chunk(batches):
                optimizer.zero_grad()
                outputs = network.outputs(inputs[chosen])
                loss_of(outputs, truth[chosen], network.amounts, settings["quantity_weight"]).backward()
                optimizer.step()
            if watched is not None:
                losses.append(_watched_loss(network, watched, device))
                if len(losses) - 1 - int(np.argmin(losses)) >= settings["patience"]:
                    break
    return network.eval(), losses


def device_name() -> str:
    """Where networks are trained here: ``cpu``, or the CUDA device's name."""
    import torch

    return f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cpu"


def _watched_loss(network: Any, watched: tuple[Floats, NDArray[np.float32]], device: Any) -> float:
    import torch

    with torch.inference_mode():
        network.eval()
        logits = network.outputs(torch.from_numpy(watched[0]).to(device))[:, 0]
        labels = torch.from_numpy(watched[1][:, 0]).to(device)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    return float(loss)


def _exported(network: Any, encoding: Encoding, facts: dict[str, Any]) -> Network:
    import torch

    network = network.cpu()
    exported = torch.export.export(network, (torch.zeros(BLOCK, len(encoding.inputs), dtype=torch.float64),))
    weights = network.input_weights(len(encoding.categories))
    return Network(
        encoding=encoding,
        facts={**facts, "device": device_name(), "torch": str(torch.__version__)},
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
