"""A Ray cluster of two nodes in a network namespace of its own: ``python -m ml_platform_tests.ray_world FOLDER``.

Ray listens beyond the loopback interface, so it is let loose where there is no other. The processes are in a namespace
of their own, too, and end with it.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from ml_platform import asset_keys
from ml_platform.spec import Between, ModelSpec, PlatformError, Search, Workers
from ml_platform.training.estimators import train
from ml_platform.training.reproduce import reproduce
from ml_platform.training.search import search
from ml_platform.training.workers import Site
from ml_platform_tests.replay_world import PACKAGE
from ml_platform_tests.services import APART
from ml_platform_tests.test_evaluation import made_house
from ml_platform_tests.test_training import SPEC, START
from ml_platform_tests.test_workers import TOGETHER, Training, rows

ROOT = Path(__file__).parent.parent
HEAD, OTHER = "127.0.0.1", "127.0.0.2"
SITE = Site(ray_address=f"{HEAD}:6379")
NETWORK = replace(TOGETHER, compute="ray")
TREES = replace(SPEC, compute="ray", workers=Workers(restarts=3))
SEARCHED = replace(TREES, search=Search(space={"learning_rate": Between(0.05, 0.3)}, trials=4, folds=2))
_SET_ADDRESS, _GET_FLAGS, _SET_FLAGS, _UP = 0x8916, 0x8913, 0x8914, 1  # SIOCSIFADDR, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP


def happened(folder: Path) -> dict[str, Any]:
    """What came of it all, in a cluster that is gone afterwards."""
    command = [*APART, sys.executable, "-W", "ignore", "-m", "ml_platform_tests.ray_world", str(folder)]
    with (folder / "log").open("wb") as log:
        done = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, timeout=400, check=False)
    assert done.returncode == 0, (folder / "log").read_text()[-4000:]
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def _loopback_up() -> None:
    """With both addresses: LightGBM looks for its own among those of the interfaces."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        flags = fcntl.ioctl(asked, _GET_FLAGS, struct.pack("16sh14x", b"lo", 0))
        fcntl.ioctl(asked, _SET_FLAGS, struct.pack("16sh14x", b"lo", struct.unpack("16xh14x", flags)[0] | _UP))
        address = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(OTHER))
        fcntl.ioctl(asked, _SET_ADDRESS, struct.pack("16s16s", b"lo:1", address))


def _start(*options: str) -> None:
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", *options]
    subprocess.run([*command, "--object-store-memory=80000000", "--disable-usage-stats"], check=True)


def _workers(what: str = "Worker") -> list[int]:
    """Processes that do this for the platform now."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if named.startswith(f"ray::{what}".encode()):
            found.append(int(folder.name))
    return sorted(found)


def _network(folder: Path) -> dict[str, Any]:
    """Trained with a worker killed on the way; where it stood when that fell, and when it went on."""
    training = Training(NETWORK, folder, SITE.ray_address)
    training.until(lambda: training.kept() >= (0, 200))
    stood, workers = training.kept(), _workers()
    os.kill(workers[-1], signal.SIGKILL)
    training.until(lambda: not set(workers) & set(_workers()))
    stood = training.kept()
    training.until(lambda: training.kept() > stood)
    went_on = training.kept()
    model = training.ended()
    return {"facts": model.facts, "digests": model.digests(), "stood": stood, "went_on": went_on, "left": _left(folder)}


def _left(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


def _trees(folder: Path) -> dict[str, Any]:
    """Grown with a worker killed at once, and without a disturbance."""
    ending = set(_workers())  # of the training before
    training = Training(TREES, folder, SITE.ray_address)
    training.until(lambda: len(set(_workers()) - ending) == 2)
    os.kill(min(set(_workers()) - ending), signal.SIGKILL)
    killed, calm = training.ended(), train(TREES, rows(), threads=1, site=SITE)
    facts = {"killed": killed.facts, "calm": calm.facts}
    return {"facts": facts, "same": killed.digests() == calm.digests(), "given": calm.predict(rows()).tolist()}


def _search(folder: Path) -> dict[str, Any]:
    """With the first worker that judges a fold killed."""
    with ThreadPoolExecutor() as here:
        asked = here.submit(search, SEARCHED, rows(), "late", folder / "studies.db", "UTC", workers=1, site=SITE)
        while not (judging := _workers("_row_losses")):
            assert not asked.done(), asked.result()
            time.sleep(0.002)
        os.kill(judging[0], signal.SIGKILL)
        return asdict(asked.result())


def _asset(folder: Path) -> dict[str, Any]:
    """A version that the asset registered, made again from its manifest."""
    house = made_house(folder / "home", TREES)
    house.resources["profile"] = replace(house.profile, ray_address=SITE.ray_address)
    keys = [asset_keys.training_set(TREES.name), asset_keys.model(TREES.name)]
    assert house.at(START + timedelta(days=31), dg.AssetSelection.assets(*keys)).success
    told = (house.lake, house.tracking, house.project, PACKAGE, TREES.name, 1)
    again, without = (reproduce(*told, folder / name, site) for name, site in (("again", SITE), ("without", Site())))
    return {"again": again.sentence(), "without": without.sentence()}


def _refused(work: Callable[[], Any]) -> str:
    try:
        work()
    except PlatformError as error:
        return str(error)
    raise AssertionError("it was not refused")


def _trained(spec: ModelSpec, site: Site = SITE) -> Callable[[], Any]:
    return lambda: train(spec, rows(), threads=1, site=site)


def main() -> None:
    """Start the nodes and let everything happen."""
    folder = Path(sys.argv[1])
    _loopback_up()
    drafts = tempfile.mkdtemp(prefix="ray-")  # the paths of Ray's sockets must be short
    _start("--head", "--port=6379", f"--node-ip-address={HEAD}", f"--temp-dir={drafts}", "--include-dashboard=false")
    _start(f"--address={SITE.ray_address}", f"--node-ip-address={OTHER}")
    found: dict[str, Any] = {"network": _network(folder / "network"), "trees": _trees(folder / "trees")}
    found["search"] = _search(folder)
    found["asset"] = _asset(folder)
    broken = replace(SEARCHED, parameters={"num_leaves": -1})
    found["refused"] = {
        "small": _refused(_trained(replace(TREES, workers=Workers(count=3)))),
        "nobody": _refused(_trained(TREES, Site(ray_address=f"{HEAD}:6380"))),
        "nonsense": _refused(_trained(TREES, Site(ray_address="auto"))),
        "trial": _refused(lambda: search(broken, rows(), "no", folder / "no.db", "UTC", workers=1, site=SITE)),
    }
    (folder / "found.json").write_text(json.dumps(found))
    shutil.rmtree(drafts, ignore_errors=True)  # Ray still writes into it


if __name__ == "__main__":
    main()
