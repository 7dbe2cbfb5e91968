"""Why an asset has no freshness policy, or no contract: one reason a family, the first part of its key.

An asset that is made by the day has a policy, whatever its family. A contract is at least one check. The reasons stand
in the assets' metadata, where their pages show them.
"""

from collections.abc import Mapping

import dagster as dg

NO_FRESHNESS: Mapping[str, str] = {
    "ablations": "made when somebody asks for it; it tells of the training set that stands",
    "contests": "held when somebody asks for it",
    "drift_reports": "a page for people, made when a retraining is wanted",
    "evaluations": "made once for each version of the model; it does not age while the version stands",
    "features": "what has no days follows a reference table, is computed when it is asked, or is the registry of them "
    "all, which changes with the code",
    "log": "written by the running service and not made here: predictions and labels, made of it, have a policy",
    "models": "when a model is too old is for its retraining policy to say (its deadline), not for a clock of its own",
    "profiles": "what has no days tells of a reference table, and is made anew when that is",
    "raw": "a reference table is not known to change; one that is declares fresh_within",
    "retrain": "an alarm: as long as nothing is wanted it is right that it is old",
    "rollouts": "follows the deployment, which is looked at every day; between rollouts nothing moves",
    "services": "looked at whenever anything upstream was updated, so at least once a day with performance and skew, "
    "which have a policy; a champion does not age by itself",
    "studies": "made when somebody asks for it",
    "training_sets": "made when a retraining is wanted; as old as the model that it made may be",
}
NO_CONTRACT: Mapping[str, str] = {
    "ablations": "a table for people, of which nothing is made",
    "batch_predictions": "each row is made by the champion from features and questions that were judged before",
    "decisions": "its reason and evidence are lines of the ledger, whose check is ledger_intact of the service",
    "drift_reports": "a page for people, of which nothing is made",
    "features": "computed from rows that kept their contract; what was served of it is recomputed by brute force, "
    "which is the check of skew",
    "labels": "truths are read strictly where they are posted; their drift has a check of its own",
    "log": "written by the service, record by record; what is torn or doubled is counted where it is read",
    "models": "what a version must keep to is asked by the gate, the check beats_champion of its evaluation",
    "predictions": "answers are read strictly and logged before they leave; what went in is judged by skew and drift",
    "profiles": "counts of rows that were judged; what they tell is judged by the check of drift",
    "retrain": "an alarm without content",
    "reviews": "what it finds is a question to a person, not a failure",
    "rollouts": "moved by evidence that may be looked at after every answer; its page tells where it stands",
    "studies": "it changes nothing: a person writes what was found into a declaration",
    "training_sets": "made of rows that kept their contract and waits while a column that it reads is refused; its "
    "content hash and label maturity stand in the run manifest",
}


def reasons(spec: dg.AssetSpec) -> dict[str, str]:
    """What an asset's page says of the policy and the contract that its family does without."""
    family, told = spec.key.path[0], {}
    if spec.freshness_policy is None and family in NO_FRESHNESS:
        told["no freshness policy"] = NO_FRESHNESS[family]
    if family in NO_CONTRACT:
        told["no contract"] = NO_CONTRACT[family]
    return told
