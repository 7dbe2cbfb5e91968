"""Trees grown by several machines of a Ray cluster that talk through LightGBM's own sockets.

Each worker holds its share of the rows; histograms are added up over all (``tree_learner=data``; Meng et al. 2016), so
all grow the same trees. LightGBM keeps no place to go on from, so after a worker's death the trees are grown anew.
"""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import ModelSpec
from ml_platform.training.encoding import Encoding
from ml_platform.training.lightgbm_trees import Rounds, Trees, dataset, parameters_of, stopped, trees
from ml_platform.training.ray_workers import Address, answers, carried_through

_WITHIN_MINUTES = 5  # for the others to come; a worker that is gone is noticed at once


def fit_together(
    spec: ModelSpec, rows: pl.DataFrame, fit: NDArray[np.int64], stop: NDArray[np.int64], address: str
) -> Trees:
    """What ``train_trees`` answers, by the spec's workers.

    Raises:
        PlatformError: there is no such cluster, it is too small, or its workers failed as often as declared.
    """
    parameters, count = parameters_of(spec, spec.workers.threads), spec.workers.count
    encodings = (Encoding.learn(spec, rows[fit]), Encoding.learn(spec, rows))

    def work(ray: Any, workers: list[Any], addresses: list[list[Address]]) -> tuple[str, Rounds]:
        watched = ray.put(rows[stop])
        asked = [
            worker.call.remote(
                _grow, addresses, parameters, encodings, rows[fit[rank::count]], watched, rows[rank::count]
            )
            for rank, worker in enumerate(workers)
        ]
        found: tuple[str, Rounds] = answers(ray, asked)[0]
        return found

    (text, found), facts = carried_through(spec, address, work)
    told: dict[str, Any] = {"rows": rows.height, "ranks": count, "threads": spec.workers.threads, **facts}
    told |= {"rounds": found.rounds, "stopping_log_loss": found.loss}
    return replace(trees(encodings[1], text, told), curves=found.curves())


def _grow(
    held: Sequence[socket.socket],
    addresses: Sequence[Sequence[Address]],
    parameters: Mapping[str, Any],
    encodings: tuple[Encoding, Encoding],
    fit: pl.DataFrame,
    watched: pl.DataFrame,
    share: pl.DataFrame,
) -> tuple[str, Rounds]:
    """What each worker does; all answer the same trees, as text, and what was found on the way."""
    import lightgbm as lgb

    told = {**parameters, **_network(held[0], [first for first, _ in addresses])}
    # Every worker watches all of these rows, so all stop after the same round.
    found = stopped(encodings[0], fit, watched, told)
    again = {**parameters, **_network(held[1], [second for _, second in addresses])}
    booster = lgb.train(again, dataset(encodings[1], share, again), num_boost_round=found.rounds)
    lines = str(booster.model_to_string(num_iteration=-1)).splitlines(keepends=True)
    # Where the workers stood is no part of the trees; the same trees are the same text.
    text = "".join(line for line in lines if not line.startswith(("[machines: ", "[local_listen_port: ")))
    return text, found


def _network(held: socket.socket, addresses: Sequence[Address]) -> dict[str, Any]:
    """LightGBM binds the port itself, so it is let go of just before."""
    port = held.getsockname()[1]
    held.close()
    return {
        "machines": ",".join(f"{host}:{each}" for host, each in addresses),
        "num_machines": len(addresses),
        "local_listen_port": port,
        "tree_learner": "data",
        "pre_partition": True,
        "time_out": _WITHIN_MINUTES,
    }
