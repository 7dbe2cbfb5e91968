"""Where the tests of the production profile run: an S3 on loopback (moto's server) and databases of a real Postgres."""

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy

from ml_platform.resources.profiles import Profile
from ml_platform_tests.services import ADDRESSES

BUCKET = "house"
# A process of its own: DeltaTable.is_deltatable holds the interpreter's lock while it waits for S3, so that a server in
# a thread could never answer it. It ends when this process closes its standard input or dies.
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """One S3 for all tests of a process: MLflow keeps its client, and with it the address, past a module."""
    command = [sys.executable, "-c", SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.terminate()


@pytest.fixture
def production(s3_endpoint, tmp_path, monkeypatch) -> Profile:
    """The production profile as its variables describe it; boto reads the same variables."""
    variables = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "ML_PLATFORM_PROFILE": "production",
        "ML_PLATFORM_HOME": str(tmp_path),
        "ML_PLATFORM_LAKE": f"s3://{BUCKET}/lake-{uuid.uuid4().hex}",
        "ML_PLATFORM_MLFLOW_URI": "http://127.0.0.1:5000",
        "ML_PLATFORM_MLFLOW_ARTIFACTS": f"s3://{BUCKET}/mlflow",
        # Replaced by the tests that write to it.
        "ML_PLATFORM_POSTGRES_URL": "postgresql+psycopg2://postgres@127.0.0.1/ml_platform",
        # Nothing here publishes.
        "ML_PLATFORM_REDIS_URL": "redis://127.0.0.1:6379/0",
        "ML_PLATFORM_BUCKET": BUCKET,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    from ml_platform.resources.production import production_resources  # loads AWS's libraries

    profile = Profile.from_environment()
    client = production_resources(profile)["s3"].get_client()
    client.create_bucket(Bucket=BUCKET)
    return profile


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """A database of the test's own, dropped at its end."""
    host, port = ADDRESSES["postgres"]
    server = f"postgresql+psycopg2://postgres@{host}:{port}"
    name = f"ml_platform_test_{uuid.uuid4().hex[:12]}"
    admin = sqlalchemy.create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    yield f"{server}/{name}"
    with admin.connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()
