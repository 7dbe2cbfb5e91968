"""Run as a process: `python -m ml_platform.sources.data_docs_page RESULTS TARGET`: Great Expectations' own page."""

import html
import json
import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
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
            "great_expectations_version": version("great-expectations"),
            "run_id": {"run_name": told["run"], "run_time": told["at"]},
            "validation_time": told["at"],
            "active_batch_definition": {"data_asset_name": told["suite"]},
        },
    )
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(found))
    Path(target).write_text(alone(page))


# Its page has its looks, its marks and its filter from eight addresses of others, which also learn who reads it when.
_STYLE = """<style>
body{font:15px/1.5 system-ui,sans-serif;color:#222;margin:0 auto;max-width:1300px;padding:1em}
.row{display:flex;flex-wrap:wrap;gap:0 2em}.col-lg-2{flex:0 0 13em}.col-lg-10{flex:1 1 40em;min-width:0}.col-6{flex:1}
.col-12{flex:1 1 100%}.sticky{position:sticky;top:1em}ul.nav,ol.breadcrumb{list-style:none;padding:0;margin:.3em 0}
ol.breadcrumb{display:flex;gap:.6em;color:#666}table{border-collapse:collapse;margin:.4em 0 1em}
td,th{border-bottom:1px solid #ddd;padding:.3em .7em;text-align:left;vertical-align:top}
a{color:#1a56b0;text-decoration:none}
.badge{background:#e8eaed;border-radius:4px;padding:.05em .4em}
.alert{border-left:4px solid #bbb;padding:.1em .8em;margin:1em 0}
.card{border:1px solid #ddd;border-radius:4px;margin:1em 0}.card-header{background:#f4f5f6;padding:.3em .7em}
.card-body{padding:.3em .7em}.text-success{color:#1a7f37}.text-danger{color:#c62828}.text-warning{color:#b26a00}
i.fa-check-circle::before{content:"\\2713"}i.fa-times::before{content:"\\2717"}i.fa-exclamation-triangle::before{content:"!"}
i{font-style:normal;font-weight:bold}.cooltip .top,.modal{display:none}
</style>"""
_FILTER = """<script>
function only(failed) {
  const show = each => { each.style.display = failed ? "none" : "" };
  document.querySelectorAll(".hide-succeeded-validation-target-child").forEach(cell => show(cell.parentElement));
  document.querySelectorAll(".hide-succeeded-validation-target").forEach(show);
  document.querySelectorAll(".hide-succeeded-validations-column-section-target-child").forEach(table => {
    const section = table.parentElement.parentElement;
    show(section);
    document.querySelectorAll(`a[href$="#${section.id}"]`).forEach(show);
  });
}
function showAllValidations() { only(false) }
function hideSucceededValidations() { only(true) }
</script>"""


_FETCHED = (
    r"<link\b[^>]*>",
    r"<script\b.*?</script>",
    r"<style\b.*?</style>",
    r"<footer\b.*?</footer>",
    r"<img\b[^>]*>",
)
_ELSEWHERE = r'<a\b[^>]*href="(?!#)[^"]*"[^>]*>(.*?)</a>'  # pages of a site that is not made


def alone(page: str) -> str:
    """The page with nothing that is fetched from elsewhere: it looks the same without a network, and tells nobody."""
    for fetched in _FETCHED:
        page = re.sub(fetched, "", page, flags=re.DOTALL)
    page = re.sub(_ELSEWHERE, r"\1", page, flags=re.DOTALL)
    return page.replace("</head>", f"{_STYLE}{_FILTER}</head>", 1)


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
