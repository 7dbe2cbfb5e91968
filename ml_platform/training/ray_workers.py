"""Workers on a Ray cluster: one for each rank, spread over its machines, started anew together when one is gone.

Ray moves what is given to a worker with pickles between processes of the one cluster; what comes back as a model is
text or plain arrays.
"""

import fcntl
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ml_platform.spec import ModelSpec, PlatformError, Workers
from ml_platform.training.checkpoints import write_whole

_ANSWERS_WITHIN_SECONDS = 10
PLACED_WITHIN_SECONDS = 300  # a machine that was lost may come back; nobody waits for ever
_GET_ADDRESS, _GET_MASK = 0x8915, 0x891B  # SIOCGIFADDR, SIOCGIFNETMASK of Linux
Answer = TypeVar("Answer")
Address = tuple[str, int]


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, as a driver of the cluster with its head at that address.

    Raises:
        PlatformError: nobody answers there, or this machine is not one of the cluster's.
    """
    import ray

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection(
            (host, int(port)), _ANSWERS_WITHIN_SECONDS
        ).close()  # Ray itself would wait for minutes
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise PlatformError(
            f"there is no Ray cluster at {address} that this machine is part of ({str(error).splitlines()[0]}); "
            f"`ray start --address={address}` here, or set ML_PLATFORM_RAY_ADDRESS to another"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def carried_through(
    spec: ModelSpec, address: str, work: Callable[[Any, list[Any], list[list[Address]]], Answer]
) -> tuple[Answer, dict[str, int]]:
    """What ``work`` answers, and facts; it is given Ray, the workers and the addresses of each.

    Raises:
        PlatformError: there is no such cluster, it is too small, or its workers failed as often as declared.
    """
    with connected(address) as ray:
        refuse_small(ray, spec, spec.workers.count)
        for attempt in range(spec.workers.restarts + 1):
            try:
                with _started(ray, spec.workers) as workers:
                    addresses = ray.get([worker.addresses.remote() for worker in workers])
                    facts = {"restarts": attempt, "machines": len({host for (host, _), *_ in addresses})}
                    return work(ray, workers, addresses), facts
            except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError) as error:
                failure = error
    raise PlatformError(
        f"the workers of model {spec.name} were started {spec.workers.restarts + 1} times on the Ray cluster at "
        f"{address} and failed each time; the last time: {str(failure).strip().splitlines()[-1]}; what was kept stays: "
        f"train it again when the cause is removed"
    ) from failure


def refuse_small(ray: Any, spec: ModelSpec, count: int) -> None:
    """Look whether the cluster could hold so many workers at all.

    Raises:
        PlatformError: it could not, and nobody would ever be started.
    """
    has, wants = ray.cluster_resources().get("CPU", 0), count * spec.workers.threads
    if has < wants:
        raise PlatformError(
            f"model {spec.name} wants {count} workers of {spec.workers.threads} threads, and the Ray cluster has "
            f"{has:.0f} CPUs in all; add machines, or declare fewer"
        )


@contextmanager
def _started(ray: Any, workers: Workers) -> Iterator[list[Any]]:
    """All at once or none, so that two trainings never wait for each other's places."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    places = ray.util.placement_group([{"CPU": workers.threads}] * workers.count, strategy="SPREAD")
    try:
        if not places.wait(PLACED_WITHIN_SECONDS):
            raise PlatformError(
                f"no place for {workers.count} workers was free on the Ray cluster for {PLACED_WITHIN_SECONDS} s; "
                f"`ray status` says who is using it"
            )
        made = ray.remote(Worker)
        yield [
            made.options(
                num_cpus=workers.threads,
                scheduling_strategy=PlacementGroupSchedulingStrategy(places, placement_group_bundle_index=rank),
            ).remote()
            for rank in range(workers.count)
        ]
    finally:
        ray.util.remove_placement_group(places)  # ends the workers in it


class Worker:
    """What stands on the cluster: a process that holds addresses of its machine, where the others will find it.

    Two of them: trees are trained twice, and who comes early to the second meeting must not get into the first.
    """

    def __init__(self) -> None:
        import ray

        # Bound and not listening: who comes too early is turned away instead of talking to nobody.
        self.held = [socket.socket(), socket.socket()]
        for each in self.held:
            each.bind((ray.util.get_node_ip_address(), 0))

    def addresses(self) -> list[Address]:
        """Where it will listen."""
        return [(str(host), int(port)) for host, port in (each.getsockname() for each in self.held)]

    def call(self, function: Callable[..., Any], *given: Any) -> Any:
        """What the function makes of the sockets that hold the addresses, and of what else is given."""
        from ml_platform.training.estimators import patient_threads

        patient_threads()
        return function(self.held, *given)


class Keeper:
    """Writes what workers on other machines keep; it stands on the machine of whoever trains."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def keep(self, content: bytes) -> None:
        """Replace what was kept before."""
        write_whole(self.path, content)


def keeper(ray: Any, path: Path) -> Any:
    """One for that path of this machine."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(Keeper).options(num_cpus=0, scheduling_strategy=here).remote(str(path))


def answers(ray: Any, asked: Sequence[Any]) -> list[Any]:
    """What all workers answer; the first failure of any is raised at once."""
    waiting = list(asked)
    while waiting:
        done, waiting = ray.wait(waiting)
        ray.get(done)
    return list(ray.get(list(asked)))


def interface_of(host: str) -> str:
    """The network interface whose network holds this machine's address.

    Raises:
        PlatformError: none does.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                address, mask = (fcntl.ioctl(asked, what, request)[20:24] for what in (_GET_ADDRESS, _GET_MASK))
            except OSError:
                continue  # it has no address
            bits = int.from_bytes(mask).bit_count()
            network = ipaddress.ip_network((address, bits), strict=False)
            if ipaddress.ip_address(host) in network:
                return name
    raise PlatformError(f"no network interface of this machine has the address {host}, which Ray calls it by")
