"""Run as a process: `python -m ml_platform.monitoring.evidently_page CURRENT REFERENCE TARGET MOST`."""

import gc
import sys


def main(current_path: str, reference_path: str, target: str, most: str) -> None:
    """Write Evidently's drift page on two parquet files to ``target``: how many of all columns drifted, then each of
    the first ``most``."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import DriftedColumnsCount, ValueDrift

    frames = [pd.read_parquet(path) for path in (current_path, reference_path)]
    shared = [name for name in frames[0].columns if name in frames[1].columns]
    current, reference = (
        Dataset.from_pandas(frame[shared], data_definition=DataDefinition(numerical_columns=shared)) for frame in frames
    )
    Report([DriftedColumnsCount(), *(ValueDrift(column=name) for name in shared[: int(most)])]).run(
        current, reference
    ).save_html(target)


if __name__ == "__main__":
    gc.disable()  # the process ends with the page; looking for garbage in between is a fifth of its time
    main(*sys.argv[1:])
