"""Run as a process: `python -m ml_platform.sources.data_docs_page RESULTS TARGET`: Great Expectations' own page."""

import html
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def main(results_path: str, target: str) -> None:
    """Write Data Docs about the results (JSON, as ``contract_results`` makes them) to ``target``."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # or each run would be told to its makers
    import great_expectations.expectations.core  # noqa: F401  # registers the types
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResult
    from great_expectations.render.renderer.page_renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    told = json.loads(Path(results_path).read_text())
    for kind in {each["type"] for each in told["results"] if each["own"]}:
        _register(kind)
    found = ExpectationSuiteValidationResult(
        success=told["success"],
        results=[_result(each) for each in told["results"]],
        suite_name=told["suite"],
        statistics=_statistics(told),
        suite_parameters={},
        meta={
            "expectation_suite_name": told["suite"],
            "run_id": {"run_name": told["run"], "run_time": told["at"]},
            "validation_time": told["at"],
            "active_batch_definition": {"data_asset_name": told["suite"]},
        },
    )
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(found))
    Path(target).write_text(page)


def _statistics(told: Mapping[str, Any]) -> dict[str, Any]:
    evaluated, good = told["evaluated"], told["successful"]
    return {
        "evaluated_expectations": evaluated,
        "successful_expectations": good,
        "unsuccessful_expectations": evaluated - good,
        "success_percent": 100 * good / evaluated if evaluated else None,
    }


def _result(each: Mapping[str, Any]) -> Any:
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    config = ExpectationConfiguration(
        type=each["type"],
        kwargs=_escaped(each["kwargs"]),
        severity=each["severity"],
        notes=each["notes"],
        description=_escaped(each["description"]),
        meta={"notes": {"format": "string", "content": [each["notes"]]}},
    )
    nothing = {"raised_exception": False, "exception_message": None, "exception_traceback": None}
    return ExpectationValidationResult(
        success=each["success"], expectation_config=config, result=_escaped(each["result"]), exception_info=nothing
    )


def _escaped(value: Any) -> Any:
    """Great Expectations puts texts onto its page as they are, those of the data, too: as tags they would be run."""
    if isinstance(value, str):
        return html.escape(value, quote=False)
    if isinstance(value, list):
        return [_escaped(each) for each in value]
    return {name: _escaped(each) for name, each in value.items()} if isinstance(value, dict) else value


def _register(kind: str) -> None:
    """A type of ours: Great Expectations shows the description that the result brings."""
    from great_expectations.expectations.expectation import BatchExpectation

    class Config:
        extra = "allow"

    def _validate(self: Any, *given: Any, **named: Any) -> dict[str, Any]:
        raise TypeError(f"{kind} is judged by ml_platform, not here")

    name = "".join(word.capitalize() for word in kind.split("_"))
    type(BatchExpectation)(
        name, (BatchExpectation,), {"Config": Config, "_validate": _validate, "__module__": __name__}
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
