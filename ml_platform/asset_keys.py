"""Every asset's address. Across stages, assets refer to each other only through these."""

import dagster as dg


def raw(table: str) -> dg.AssetKey:
    """A validated source table."""
    return dg.AssetKey(["raw", table])


def features(view: str) -> dg.AssetKey:
    """A feature view's table, offline and online."""
    return dg.AssetKey(["features", view])


def feature_registry() -> dg.AssetKey:
    """The Feast registry of all views."""
    return dg.AssetKey(["features", "registry"])


def predictions(service: str) -> dg.AssetKey:
    """What a service answered."""
    return dg.AssetKey(["predictions", service])


def labels(service: str) -> dg.AssetKey:
    """The truths posted to a service."""
    return dg.AssetKey(["labels", service])


def performance(service: str) -> dg.AssetKey:
    """A service's daily losses on late labels."""
    return dg.AssetKey(["performance", service])


def skew(service: str) -> dg.AssetKey:
    """Served vectors against recomputed ones."""
    return dg.AssetKey(["skew", service])


def profiles(family: str, name: str) -> dg.AssetKey:
    """What the columns of a table hold, day by day: of ``raw``, ``predictions`` or ``labels``."""
    return dg.AssetKey(["profiles", family, name])


def reviews(project: str) -> dg.AssetKey:
    """What moved sharply although no drift policy covers it."""
    return dg.AssetKey(["reviews", project])


def drift(policy: str) -> dg.AssetKey:
    """A drift policy's daily verdict."""
    return dg.AssetKey(["drift", policy])


def drift_report(policy: str) -> dg.AssetKey:
    """The page for people beside a drift verdict."""
    return dg.AssetKey(["drift_reports", policy])


def decision(policy: str) -> dg.AssetKey:
    """Whether to retrain, and why."""
    return dg.AssetKey(["decisions", policy])


def retrain(policy: str) -> dg.AssetKey:
    """The alarm that a decision raises, only while a wanted retraining is not consumed."""
    return dg.AssetKey(["retrain", policy])


def training_set(model: str) -> dg.AssetKey:
    """The rows a model is trained and judged on."""
    return dg.AssetKey(["training_sets", model])


def model(model: str) -> dg.AssetKey:
    """A trained and registered model version."""
    return dg.AssetKey(["models", model])


def study(model: str) -> dg.AssetKey:
    """A search for a model's parameters."""
    return dg.AssetKey(["studies", model])


def evaluation(model: str) -> dg.AssetKey:
    """The challenger against the champion on the same fresh rows."""
    return dg.AssetKey(["evaluations", model])


def ablation(model: str) -> dg.AssetKey:
    """What a model loses without each view or feature."""
    return dg.AssetKey(["ablations", model])


def contest(model: str) -> dg.AssetKey:
    """The models that compete for one model's place."""
    return dg.AssetKey(["contests", model])


def service(service: str) -> dg.AssetKey:
    """What a service serves: the champion's version."""
    return dg.AssetKey(["services", service])


def rollout(policy: str) -> dg.AssetKey:
    """Where a service's rollout stands, with its evidence."""
    return dg.AssetKey(["rollouts", policy])


def batch_predictions(service: str) -> dg.AssetKey:
    """Tomorrow's rows scored by the champion."""
    return dg.AssetKey(["batch_predictions", service])


def kinds(key: dg.AssetKey, *tools: str) -> set[str]:
    """The tools that an asset is made with, and its family (the first part of its key), as Dagster's pages show them.

    The graph names an asset by the last part of its key alone, which everything about one service or model shares.
    """
    return {key.path[0], *tools}
