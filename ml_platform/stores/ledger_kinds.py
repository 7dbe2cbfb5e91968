"""The kinds of line in the ledger: about what, when, and what their bodies hold. A new kind begins here.

Versions are written as text. No body names an entity or a prediction, unless a person's reason does: from such a line
the field is taken out when the entity is forgotten, and a redaction says so. ``forgotten``, and a forgetting's
``digest``, are salted hashes of the entity's value.

| kind | about | written when | body |
|---|---|---|---|
| decision | a policy | every day | model, answer, reason, wanted, consumed, measures; asked, held, spares, rules |
| drift | a drift policy, or a column | its verdict of a day failed | day, service, reason |
| review | a model | drift that no policy answers was found | drift, reason, lines |
| reviewed | a model | a person's word on it | review (its line), answer (retrain, leave), by, reason |
| request | a model | a person asked for a retraining | by, reason |
| gathering | a model | a training set was gathered | decision, manifest, heard (the last line before it began) |
| training | a model | a version was registered | version, decision, heard, manifest (digest), files (path: SHA-256) |
| files | a model | a forgetting is about to change files of a version | version, files (path: SHA-256), reason |
| gate | a model | a version was judged | version, state, reason, champion, measures |
| hold | a model | a promotion has to wait | version, before, reason, gate |
| refusal | a model | a version is not promoted | version, before, reason, gate |
| approval | a model | a person let a version pass | version, champion, by, reason, gate, override |
| rejection | a model | a person ended a candidacy | version, by, reason |
| alias | a model | an alias is about to be moved | alias, version, before, reason, gate, approval |
| promotion | a model | it was moved: the version serves | as alias |
| found | a model | somebody else moved it | alias, version (null: removed), before |
| adoption | a model | a person said which one is right | alias, version, before, by, reason |
| begin | a model | a rollout begins, in the shadow | number, champion, canary, reason |
| pause, resume | a model | an operator lets a rollout rest, or go on | canary, by, reason |
| rollout | a model | a canary's share changes | champion, canary, share (above 0, at most 1), reason |
| rollback | a model | the canary lost, or the champion goes | version (serves again), before, reason, by (a person) |
| abort | a model | a rollout ended without a verdict | canary, reason, by (a person) |
| key | a service | a key was added or revoked | action, name, roles, by |
| skew | a service | answers were recomputed | days, compared, differing, reason |
| failure | a project | a step of a replay failed | step, partition, reason |
| forgetting | a project | an entity was forgotten | entity, digest, held, models, readable_from, remains |
| redaction | as its line | fields were taken out of a line | line, digest (the line's), fields, entity, forgotten |
| chain | the ledger | lines from before the chain joined it | lines |
"""

DECISION = "decision"
DRIFT = "drift"
REVIEW, REVIEWED = "review", "reviewed"
REQUEST = "request"
GATHERING = "gathering"
TRAINING = "training"
FILES = "files"
GATE = "gate"
HOLD = "hold"
REFUSAL = "refusal"
APPROVAL = "approval"
REJECTION = "rejection"
ALIAS = "alias"
PROMOTION = "promotion"
FOUND = "found"
ADOPTION = "adoption"
BEGIN = "begin"
PAUSE, RESUME = "pause", "resume"
ROLLOUT = "rollout"
ROLLBACK = "rollback"
ABORT = "abort"
KEY = "key"
SKEW = "skew"
FAILURE = "failure"
REDACTION = "redaction"
CHAIN = "chain"

# After which another version serves than before, or with another share.
SERVING = (PROMOTION, FOUND, ADOPTION, ROLLOUT, ROLLBACK, ABORT)
# What a model's history tells.
_ASKED = (REQUEST, REVIEW, REVIEWED)
_ITS_WAY = (TRAINING, FILES, GATE, HOLD, REFUSAL, APPROVAL, REJECTION, ALIAS, BEGIN, PAUSE, RESUME)
OF_A_MODEL = (*_ASKED, *_ITS_WAY, *SERVING, REDACTION)
