"""Addresses of the services that tests use."""

import os

# Where the services of the tests listen; set them to use others.
ADDRESSES = {
    "postgres": (os.environ.get("TEST_POSTGRES_HOST", "127.0.0.1"), int(os.environ.get("TEST_POSTGRES_PORT", "5432"))),
    "redis": (os.environ.get("TEST_REDIS_HOST", "127.0.0.1"), int(os.environ.get("TEST_REDIS_PORT", "6379"))),
}
