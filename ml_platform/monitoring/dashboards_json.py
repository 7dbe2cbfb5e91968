"""Dashboards in Grafana's JSON (schema 38, Grafana 10 and later)."""

import json
from collections.abc import Iterator
from typing import Any

from ml_platform.monitoring.dashboards import Dashboard, Panel

_SOURCE = {"type": "prometheus", "uid": "ml-platform-prometheus"}  # as deploy/grafana/provisioning names it
_COLUMNS, _HEIGHT = 24, 8  # of Grafana's grid
_SCHEMA = 38


def as_json(dashboard: Dashboard) -> str:
    """The file that Grafana is provisioned with; the same dashboard gives the same bytes."""
    body = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["ml-platform"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "templating": {"list": [_variable(*each) for each in dashboard.variables.items()]},
        "panels": list(_placed(dashboard.panels)),
    }
    return json.dumps(body, indent=2) + "\n"


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "includeAll": True,
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def _placed(panels: tuple[Panel, ...]) -> Iterator[dict[str, Any]]:
    """From left to right; a row that is full is followed by the next."""
    x = y = 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > _COLUMNS:
            x, y = 0, y + _HEIGHT
        yield _panel(number, panel, {"x": x, "y": y, "w": panel.width, "h": _HEIGHT})
        x += panel.width


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    colours = ("red",) if len(panel.limits) == 1 else ("orange", "red")
    steps += [{"color": colour, "value": limit} for colour, limit in zip(colours, panel.limits, strict=False)]
    custom: dict[str, Any] = {}
    if panel.limits and panel.kind == "timeseries":
        custom["thresholdsStyle"] = {"mode": "line"}
    if panel.logarithmic:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "thresholds": {"mode": "absolute", "steps": steps}, "custom": custom},
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "datasource": _SOURCE,
                "expr": query,
                "legendFormat": legend,
                "instant": panel.kind in ("table", "stat"),
                "range": panel.kind not in ("table", "stat"),
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for position, (legend, query) in enumerate(panel.queries.items())
        ],
    }
