"""What reading the state may end with, where one part that cannot be read must not hide the others."""

import sqlite3

from deltalake.exceptions import DeltaError
from polars.exceptions import PolarsError
from sqlalchemy.exc import SQLAlchemyError

from ml_platform.spec import PlatformError

# What is wrong in the code itself (a name, a type) is none of these, and ends the process that met it.
UNREADABLE = (PlatformError, OSError, sqlite3.Error, DeltaError, PolarsError, SQLAlchemyError)
