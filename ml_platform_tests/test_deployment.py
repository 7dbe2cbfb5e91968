"""Who becomes champion: the gate decides, and a person where one is asked."""

from pathlib import Path

import pytest

from ml_platform.serving.aliases import look
from ml_platform.serving.approvals import Word, adopt, approve, reject
from ml_platform.serving.deployment import Candidate, decide
from ml_platform.spec import MissingHistory, UnknownName, WordRefused
from ml_platform.spec.models import Approval
from ml_platform.stores.ledger import Entry
from ml_platform.stores.ledger_kinds import (
    ALIAS,
    APPROVAL,
    HOLD,
    PROMOTION,
    REFUSAL,
)
from ml_platform_tests.registry_world import MODEL, START, Registry, with_a_champion, with_one_that_waits

ANN = Word(by="ann", reason="looked at the slices")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return with_a_champion(tmp_path / "home")


@pytest.fixture
def asking(tmp_path: Path) -> Registry:
    return with_one_that_waits(tmp_path / "home")


def line(**body: object) -> Entry:
    return Entry(number=7, at=START, kind="any", subject=MODEL, key="k", body=body)


@pytest.mark.parametrize("approval", ["automatic", "person"])
@pytest.mark.parametrize(
    ("state", "champion", "said", "action"),
    [
        ("pass", None, "", "promoted"),
        ("pass", "1", "", "promoted"),
        ("warn", "1", "", "promoted"),
        ("fail", "1", "", "refused"),
        ("unknown", "1", "", "refused"),
        ("unknown", None, "", "refused"),
        ("pass", "2", "promoted", "kept"),
        ("pass", "1", "promoted", "kept"),  # somebody rolled back
        ("pass", "1", "rejected", "refused"),
        ("pass", "1", "approved rejected", "refused"),
        ("pass", "1", "approved", "promoted"),
        ("pass", "1", "approved promoted", "kept"),
        ("fail", "1", "approved", "refused"),
        ("fail", "1", "approved override", "promoted"),
        ("unknown", "1", "approved override", "promoted"),
    ],
)
def test_what_a_verdict_and_words_do(
    state: str, champion: str | None, said: str, action: str, approval: Approval
) -> None:
    approved = line(by="ann", reason="r", override="override" in said)
    candidate = Candidate(
        verdict=line(state=state, reason="why", version=2, champion=champion),
        promoted_before="promoted" in said,
        approval=approved if "approved" in said else None,
        rejection=line(by="ann", reason="r") if "rejected" in said else None,
    )
    found, reason = decide(candidate, champion, approval)
    asks = approval == "person" and "approved" not in said
    assert found == ("held" if asks and action == "promoted" else action)
    assert reason


# The gate alone decides


def test_a_model_that_was_never_judged_is_said_so(tmp_path: Path) -> None:
    registry = Registry.fresh(tmp_path / "home")
    with pytest.raises(MissingHistory, match="evaluations/late"):
        registry.deploy()


def test_a_version_that_passed_is_promoted_once_and_every_step_is_written_down(registry: Registry) -> None:
    registry.trained_and_judged()
    for at in (registry, registry.later()):
        done = at.deploy()
        assert done.champion == "2"
    assert done.action == "kept"
    assert registry.champion == 2
    assert registry.kinds() == ["training", "gate", "alias", "promotion"] * 2
    promotion = registry.ledger.last(PROMOTION, MODEL)
    move, verdict = registry.ledger.last(ALIAS, MODEL), registry.ledger.last("gate", MODEL)
    assert promotion is not None
    assert move is not None
    assert verdict is not None
    told = {"alias": "champion", "version": "2", "before": "1", "reason": "pass because", "approval": None}
    assert promotion.body == move.body == {**told, "gate": verdict.number}
    assert (promotion.key, promotion.at) == ("v2", registry.at)
    assert done.aliases.state == done.ledger.state == "pass"


def test_a_refusal_is_written_down_and_changes_nothing(registry: Registry) -> None:
    registry.trained_and_judged("fail")
    for _ in range(2):
        done = registry.deploy()
        assert (done.action, done.champion, done.reason) == ("refused", "1", "fail because")
    (entry,) = registry.ledger.entries(REFUSAL, MODEL)
    assert (entry.body["reason"], entry.body["version"]) == ("fail because", "2")


def test_a_broken_ledger_holds_promotions(registry: Registry) -> None:
    registry.trained_and_judged()
    whole = registry.ledger.head_path.read_bytes()
    registry.ledger.head_path.unlink()
    done = registry.deploy()
    assert (done.action, done.ledger.state, registry.champion) == ("held", "fail", 1)
    assert "what the ledger says of it cannot be trusted" in done.reason
    registry.ledger.head_path.write_bytes(whole)
    assert registry.deploy().action == "promoted"


# A person decides


def test_what_passed_waits_for_a_person_and_is_promoted_on_her_word(asking: Registry) -> None:
    for hours in (0, 24):
        done = asking.later(hours).deploy()
        assert (done.action, done.champion) == ("held", "1")
        assert "version 2 passed the gate and awaits `ml-platform approve` (or `reject`): pass because" in done.reason
    (hold,) = asking.ledger.entries(HOLD, MODEL)  # once, not every day
    assert hold.body["version"] == "2"
    said = approve(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.at)
    assert asking.champion == 1
    assert asking.later().deploy().action == "promoted"
    assert asking.champion == 2
    promotion = asking.ledger.last(PROMOTION, MODEL)
    assert promotion is not None
    assert promotion.body["approval"] == said.number
    assert promotion.body["reason"] == f"pass because; approved by ann (line {said.number}): looked at the slices"
    again = approve(asking.tracking, asking.ledger, MODEL, 2, Word(by="bob", reason="me too"), asking.later().at)
    assert again == said
    assert len(asking.ledger.entries(APPROVAL, MODEL)) == 2  # of version 1 and of version 2


def test_approving_twice_before_the_deployment_says_it_once(asking: Registry) -> None:
    first = approve(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.at)
    second = approve(asking.tracking, asking.ledger, MODEL, 2, Word(by="bob", reason="me too"), asking.later().at)
    assert second == first


def test_a_rejected_version_is_never_promoted(asking: Registry) -> None:
    first = reject(asking.tracking, asking.ledger, MODEL, 2, Word(by="ann", reason="bad for one line"), asking.at)
    assert reject(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.later().at) == first
    for at in (asking, asking.later(), asking.later(48)):
        done = at.deploy()
        assert (done.action, done.champion) == ("refused", "1")
        assert f"was rejected by ann (line {first.number}): bad for one line" in done.reason
    for override in (False, True):
        with pytest.raises(WordRefused, match=r"version 2 of late was rejected by ann on 2024-03-11 .*never promoted"):
            approve(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.at, override=override)
    assert asking.champion == 1
    assert asking.trained_and_judged() == 3
    approve(asking.tracking, asking.ledger, MODEL, 3, ANN, asking.at)
    assert asking.deploy().champion == "3"


def test_a_word_can_be_taken_back_until_it_is_carried_out(asking: Registry) -> None:
    approve(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.at)
    reject(asking.tracking, asking.ledger, MODEL, 2, Word(by="ann", reason="no, wait"), asking.at)
    assert asking.deploy().action == "refused"
    assert asking.champion == 1


def test_a_person_may_choose_the_older_of_two_that_wait(asking: Registry) -> None:
    asking.trained_and_judged()
    assert asking.deploy().reason.startswith("version 3 passed")
    approve(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.at)
    assert asking.deploy().champion == "2"
    # Version 3 was judged against version 1.
    with pytest.raises(WordRefused, match="judged against version 1, and version 2 is champion now"):
        approve(asking.tracking, asking.ledger, MODEL, 3, ANN, asking.at)
    approve(asking.tracking, asking.ledger, MODEL, 3, ANN, asking.at, override=True)
    assert asking.deploy().champion == "3"


def test_a_word_about_another_champion_is_void(asking: Registry) -> None:
    third = asking.trained_and_judged()
    approve(asking.tracking, asking.ledger, MODEL, 2, ANN, asking.at)
    approve(asking.tracking, asking.ledger, MODEL, third, ANN, asking.at)
    assert asking.deploy().champion == "3"  # the newer of both
    for at in (asking, asking.later()):
        assert at.deploy().champion == "3"


@pytest.mark.parametrize("approval", ["automatic", "person"])
@pytest.mark.parametrize("state", ["fail", "unknown"])
def test_against_the_gate_only_with_override(tmp_path: Path, approval: Approval, state: str) -> None:
    registry = Registry.fresh(tmp_path / "home", approval)
    version = registry.trained_and_judged(state)
    with pytest.raises(WordRefused, match=rf"version 1 of late did not pass the gate \({state}\).*With --override"):
        approve(registry.tracking, registry.ledger, MODEL, version, ANN, registry.at)
    assert registry.deploy().action == "refused"
    said = approve(registry.tracking, registry.ledger, MODEL, version, ANN, registry.at, override=True)
    assert said.body["override"] is True
    assert registry.deploy().champion == "1"


def test_automatically_nothing_is_promoted_on_a_verdict_about_another_champion(registry: Registry) -> None:
    second, third = registry.train(), registry.train()
    registry.judge(third)  # against version 1
    registry.move_by_hand(second)
    look(registry.tracking, registry.ledger, MODEL, registry.at)
    adopt(registry.tracking, registry.ledger, MODEL, second, ANN, registry.at)
    done = registry.deploy()
    assert (done.action, done.champion) == ("held", "2")
    assert "judged against version 1, and version 2 is champion now" in done.reason


def test_words_about_what_is_not_there_or_over_are_refused(asking: Registry) -> None:
    tracking, ledger, at = asking.tracking, asking.ledger, asking.at
    for say in (approve, reject, adopt):
        with pytest.raises(UnknownName, match=r"no version of model late named '9'; known: 1, 2"):
            say(tracking, ledger, MODEL, 9, ANN, at)
        with pytest.raises(UnknownName, match="no registered model named 'lat'; did you mean late"):
            say(tracking, ledger, "lat", 1, ANN, at)
        for word in (Word(by=" ", reason="r"), Word(by="ann", reason="")):
            with pytest.raises(WordRefused, match="give --by a name and --reason a sentence"):
                say(tracking, ledger, MODEL, 2, word, at)
    with pytest.raises(WordRefused, match="version 1 of late is champion already"):
        reject(tracking, ledger, MODEL, 1, ANN, at)
    third = asking.train()
    with pytest.raises(WordRefused, match="was never judged; materialize evaluations/late"):
        approve(tracking, ledger, MODEL, third, ANN, at, override=True)
    approve(tracking, ledger, MODEL, 2, ANN, at)
    asking.deploy()
    for say in (approve, reject):
        with pytest.raises(WordRefused, match=r"version 1 of late was champion before .* version 2 took its place"):
            say(tracking, ledger, MODEL, 1, ANN, at)
    with pytest.raises(WordRefused, match="nobody moved the champion of late past the platform: it is version 2"):
        adopt(tracking, ledger, MODEL, 1, ANN, at)
