"""Trees grown by several machines of a Ray cluster that talk through LightGBM's own sockets.

Each worker holds its share of the rows; histograms are added up over all (``tree_learner=data``; Meng et al. 2016), so
all grow the same trees. LightGBM keeps no place to go on from, so after a worker's death the trees are grown anew.
"""

import socket
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ml_platform.spec import ModelSpec
from ml_platform.training.encoding import Encoding
from ml_platform.training.lightgbm_trees import Trees, dataset, parameters_of, stopped, trees
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
    of_fit, encoding = Encoding.learn(spec, rows[fit]), Encoding.learn(spec, rows)

    def find(ray: Any, workers: list[Any], addresses: list[Address]) -> tuple[int, dict[str, float]]:
        watched = ray.put(rows[stop])
        shares = [ray.put(rows[fit[rank::count]]) for rank in range(count)]
        asked = [
            worker.call.remote(_find, addresses, parameters, of_fit, share, watched)
            for worker, share in zip(workers, shares, strict=True)
        ]
        found: tuple[int, dict[str, float]] = answers(ray, asked)[0]
        return found

    (rounds, losses), found_by = carried_through(spec, address, find)

    def grow(ray: Any, workers: list[Any], addresses: list[Address]) -> str:
        shares = [ray.put(rows[rank::count]) for rank in range(count)]
        asked = [
            worker.call.remote(_grow, addresses, parameters, encoding, share, rounds)
            for worker, share in zip(workers, shares, strict=True)
        ]
        text: str = answers(ray, asked)[0]
        return text

    text, facts = carried_through(spec, address, grow)
    told = {"rounds": rounds, "rows": rows.height, "ranks": count, "threads": spec.workers.threads, **losses}
    return trees(encoding, text, {**told, **facts, "restarts": facts["restarts"] + found_by["restarts"]})


def _find(
    listener: socket.socket,
    addresses: Sequence[Address],
    parameters: Mapping[str, Any],
    encoding: Encoding,
    share: pl.DataFrame,
    watched: pl.DataFrame,
) -> tuple[int, dict[str, float]]:
    # Every worker watches all of these rows, so all stop after the same round.
    return stopped(encoding, share, watched, {**parameters, **_network(listener, addresses)})


def _grow(
    listener: socket.socket,
    addresses: Sequence[Address],
    parameters: Mapping[str, Any],
    encoding: Encoding,
    share: pl.DataFrame,
    rounds: int,
) -> str:
    import lightgbm as lgb

    told = {**parameters, **_network(listener, addresses)}
    booster = lgb.train(told, dataset(encoding, share, told), num_boost_round=rounds)
    lines = str(booster.model_to_string(num_iteration=-1)).splitlines(keepends=True)
    # Where the workers stood is no part of the trees; the same trees are the same text.
    return "".join(line for line in lines if not line.startswith(("[machines: ", "[local_listen_port: ")))


def _network(listener: socket.socket, addresses: Sequence[Address]) -> dict[str, Any]:
    """LightGBM binds the port itself, so it is let go of just before."""
    port = listener.getsockname()[1]
    listener.close()
    return {
        "machines": ",".join(f"{host}:{each}" for host, each in addresses),
        "num_machines": len(addresses),
        "local_listen_port": port,
        "tree_learner": "data",
        "pre_partition": True,
        "time_out": _WITHIN_MINUTES,
    }
