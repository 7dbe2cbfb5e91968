"""Grafana's dashboards as values: what is drawn, from which numbers. `dashboards_json.py` words them for Grafana."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "table", "state-timeline"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """title, description: for people. queries: legend (in Grafana's words) -> PromQL. unit: by Grafana's name.

    limits: drawn as lines; where there is more than one, the first warns.
    """

    title: str
    description: str
    queries: Mapping[str, str]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 12
    limits: tuple[float, ...] = ()
    logarithmic: bool = False


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """uid: of its address. variables: name -> PromQL's ``label_values(...)``, chosen at its top."""

    uid: str
    title: str
    variables: Mapping[str, str]
    panels: tuple[Panel, ...]


_AGE = "scalar(ml_platform_clock_timestamp_seconds) - "

PLATFORM = Dashboard(
    uid="ml-platform",
    title="ML platform",
    variables={
        "service": "label_values(ml_platform_rollout_share, service)",
        "model": "label_values(ml_platform_champion_version, model)",
        "policy": "label_values(ml_platform_retrainings_wanted_total, policy)",
    },
    panels=(
        Panel(
            title="Open incidents",
            description="One cause each; the message about it has the link.",
            queries={"{{severity}} {{place}} ({{kind}})": "ml_platform_incident_open == 1"},
            kind="table",
            width=16,
        ),
        Panel(
            title="Alerts that fire",
            description="Of all rules, silenced or not.",
            queries={"{{severity}}": 'count by (severity) (ALERTS{alertstate="firing"})'},
            kind="stat",
            width=4,
        ),
        Panel(
            title="Messages that wait",
            description="Where the platform tells people itself.",
            queries={"{{channel}}": "ml_platform_alerts_waiting"},
            kind="stat",
            width=4,
        ),
        Panel(
            title="Age of the newest day over what is allowed",
            description="Above 1 a table is stale.",
            queries={
                "{{asset}}": f"({_AGE}ml_platform_table_newest_timestamp_seconds) / on (asset) "
                f"ml_platform_table_fresh_within_seconds"
            },
            unit="percentunit",
            limits=(0.95, 1.0),
        ),
        Panel(
            title="Checks and deadlines that do not pass",
            description="By Dagster's record.",
            queries={
                "{{state}} check {{check}} of {{asset}}": 'ml_platform_check_state{state!="pass"} == 1',
                "{{state}} deadline of {{asset}}": 'ml_platform_freshness_state{state=~"warn|fail"} == 1',
            },
            kind="table",
        ),
        Panel(
            title="Log-loss on late labels, 7 days",
            description="By version, of answers whose truth has arrived.",
            queries={"{{service}} version {{version}}": 'ml_platform_log_loss{service=~"$service"}'},
        ),
        Panel(
            title="Maturity",
            description="Share of the truths that have arrived, of answers so many days old.",
            queries={"after {{age_days}} days": 'ml_platform_label_maturity{service=~"$service"}'},
            unit="percentunit",
        ),
        Panel(
            title="Drift over its threshold",
            description="The ten features that are farthest; at 1 the verdict fails.",
            queries={
                "{{feature}} ({{of}})": "topk(10, ml_platform_drift_distance / on (policy, feature, of) "
                "ml_platform_drift_threshold)"
            },
            unit="percentunit",
            limits=(1.0,),
        ),
        Panel(
            title="Served against recomputed",
            description="Values that differ; while one does nothing is promoted.",
            queries={
                "differing, {{service}}": 'ml_platform_skew_values_differing{service=~"$service"}',
                "compared, {{service}}": 'ml_platform_skew_values_compared{service=~"$service"}',
            },
        ),
        Panel(
            title="Decisions",
            description="Whether to retrain, by answer.",
            queries={
                "{{policy}}: {{answer}}": 'ml_platform_decision_answer{policy=~"$policy"} == 1',
                "held back by {{by}}": 'ml_platform_decision_held{policy=~"$policy"} == 1',
                "waits for a person": 'ml_platform_reviews_open{policy=~"$policy"} > 0',
            },
            kind="state-timeline",
        ),
        Panel(
            title="What the last decision rests on",
            description="The numbers of the decision's line in the ledger.",
            queries={"{{measure}}": 'ml_platform_decision_measure{policy=~"$policy", measure=~"ratio|maturity"}'},
        ),
        Panel(
            title="Retrainings",
            description="Wanted and carried out; where the first is above, one waits.",
            queries={
                "wanted, {{policy}}": 'ml_platform_retrainings_wanted_total{policy=~"$policy"}',
                "carried out, {{policy}}": 'ml_platform_retrainings_consumed_total{policy=~"$policy"}',
            },
        ),
        Panel(
            title="Versions",
            description="The champion's, and what happened to versions within a day.",
            queries={
                "champion of {{model}}": 'ml_platform_champion_version{model=~"$model"}',
                "{{event}} of {{model}}": 'increase(ml_platform_model_events_total{model=~"$model"}[1d]) > 0',
            },
        ),
        Panel(
            title="Rollout: share and evidence",
            description="E-values on a logarithmic scale; at the needed one the canary goes, or wins.",
            queries={
                "needed": 'ml_platform_rollout_evidence_needed{service=~"$service"}',
                "against: {{guard}}": 'ml_platform_rollout_evidence_against{service=~"$service"}',
                "for: {{guard}}": 'ml_platform_rollout_evidence_in_favour{service=~"$service"}',
                "share": 'ml_platform_rollout_share{service=~"$service"}',
            },
            width=16,
            logarithmic=True,
        ),
        Panel(
            title="Rollout's phase",
            description="Of the newest rollout, and how long it has been in its step.",
            queries={
                "{{phase}}": 'ml_platform_rollout_phase{service=~"$service"} == 1',
                "seconds in this step": f'{_AGE}ml_platform_rollout_since_timestamp_seconds{{service=~"$service"}}',
                "{{variant}} {{guard}}": 'ml_platform_rollout_units{service=~"$service"}',
            },
            kind="table",
            width=8,
        ),
        Panel(
            title="Failed steps, unreadable parts, a broken ledger",
            description="Nothing is drawn while nothing is wrong.",
            queries={
                "failed steps within a day": "increase(ml_platform_run_failures_total[1d]) > 0",
                "unreadable: {{part}}": "ml_platform_read_failed == 1",
                "ledger: {{state}}": 'ml_platform_ledger_state{state=~"fail|unknown"} == 1',
            },
        ),
        Panel(
            title="Reading the state",
            description="Seconds of the exporter by part.",
            queries={"{{part}}": "ml_platform_read_seconds"},
            unit="s",
        ),
    ),
)

SERVING = Dashboard(
    uid="ml-platform-serving",
    title="ML platform: serving",
    variables={"service": "label_values(ml_platform_requests_total, service)"},
    panels=(
        Panel(
            title="Requests by answer",
            description="A second, by endpoint and status.",
            queries={
                "{{endpoint}} {{status}}": "sum by (endpoint, status) "
                '(rate(ml_platform_requests_total{service=~"$service"}[1m]))'
            },
            unit="reqps",
        ),
        Panel(
            title="Errors",
            description="Share of the predictions that were answered 5xx.",
            queries={"{{service}}": "ml_platform:errors:rate5m / ml_platform:requests:rate5m"},
            unit="percentunit",
            limits=(0.01,),
        ),
        Panel(
            title="Latency",
            description="Of predictions, to the answer.",
            queries={
                f"p{share * 100:g}": f"histogram_quantile({share}, sum by (le) "
                f'(rate(ml_platform_request_seconds_bucket{{endpoint="/predict", service=~"$service"}}[1m])))'
                for share in (0.5, 0.9, 0.99)
            },
            unit="s",
            limits=(0.1,),
        ),
        Panel(
            title="Mean latency by endpoint",
            description="Seconds over requests.",
            queries={
                "{{endpoint}}": 'sum by (endpoint) (rate(ml_platform_request_seconds_sum{service=~"$service"}[1m])) / '
                'sum by (endpoint) (rate(ml_platform_request_seconds_count{service=~"$service"}[1m]))'
            },
            unit="s",
        ),
        Panel(
            title="Waiting and in flight",
            description="By process; above most_waiting (512 by default) callers are told to come back.",
            queries={
                "waiting, {{instance}}": 'ml_platform_requests_waiting{service=~"$service"}',
                "in flight, {{instance}}": 'ml_platform_requests_in_flight{service=~"$service"}',
            },
            limits=(256.0,),
        ),
        Panel(
            title="Answered together",
            description="Predictions that shared one exchange with the store.",
            queries={
                "{{service}}": 'sum by (service) (rate(ml_platform_turn_questions_total{service=~"$service"}[1m])) / '
                'sum by (service) (rate(ml_platform_turns_total{service=~"$service"}[1m]))'
            },
        ),
        Panel(
            title="Answers a day, as the lake has them",
            description="Of the newest day; its end is a night later than the answers.",
            queries={"{{service}}": 'ml_platform_day_answers{service=~"$service"}'},
            kind="stat",
        ),
        Panel(
            title="Replicas",
            description="1 while its page can be read.",
            queries={"{{instance}}": 'up{job="ml-platform-serving"}'},
            kind="state-timeline",
        ),
    ),
)

DASHBOARDS: Mapping[str, Dashboard] = {"platform": PLATFORM, "serving": SERVING}
