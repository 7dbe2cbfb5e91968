"""Great Expectations' Data Docs about a contract: its page, drawn in a process of its own, which takes seconds."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_platform.sources.suites import installed
from ml_platform.spec import PlatformError

_TIMEOUT_SECONDS = 300  # it takes about ten, of which six are the import


def write_docs(results: Mapping[str, Any], target: Path) -> Path:
    """Draw the page about results (``contract_results``) at ``target``.

    Raises:
        PlatformError: Great Expectations is not installed, or failed; its last lines are in the message.
    """
    if installed() is None:
        raise PlatformError("Data Docs are drawn by Great Expectations, which is not installed: make installs it")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".docs-") as folder:
        told, page = Path(folder) / "results.json", Path(folder) / "page.html"
        told.write_text(json.dumps(results))
        command = [sys.executable, "-W", "ignore", "-m", "ml_platform.sources.data_docs_page", str(told), str(page)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise PlatformError(
                f"Great Expectations took over {_TIMEOUT_SECONDS} s for {target.name}; try again"
            ) from error
        if done.returncode:
            tail = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise PlatformError(f"Great Expectations could not draw {target.name}:\n{tail}")
        page.replace(target)
    return target
