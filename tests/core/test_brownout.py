import tracemalloc

import msgspec
import pytest

from gateway.core.access.callers import Caller, Restrictions
from gateway.core.calls.calls import Call, Endpoint, parse
from gateway.core.errors import ModelBrownedOut
from gateway.core.guard.brownout import Brownout, Brownouts, Level, Trimmed, brownouts_in_force
from gateway.core.guard.caps import Caps, CapsByLevel, bounds_of

NOW_MS = 1_000_000
ANYBODY = Caller("account", "key")
NO_CAPS = Caps()
DEARER = "o1-pro"
LOW = Caller("account", "key", priority="low")
LOW_KEY = Caller("account", "key", key_priority="low")


def brownout(level: Level, models: str = "gpt-4o", **settings: object) -> Brownout:
    plain = Brownout(models, level, 100, 500, "gpt-4o-mini", "too slow", "ann", NOW_MS, NOW_MS + 60_000)
    return msgspec.structs.replace(plain, **settings)


def chat(**fields: object) -> Call:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]} | fields
    return parse(Endpoint.CHAT, msgspec.json.encode(body))


def trim(
    call: Call,
    *brownouts: Brownout,
    caller: Caller = ANYBODY,
    caps: Caps = NO_CAPS,
    accepts_reroute: bool = False,
    auto_tier: str = "default",
) -> Trimmed:
    in_force = brownouts_in_force(brownouts, NOW_MS)
    assert in_force is not None
    return in_force.trim(
        call,
        call.model.removesuffix("-2024-08-06"),
        caller,
        bounds_of(caller, CapsByLevel(account=caps), NOW_MS),
        accepts_reroute=(lambda model: model != DEARER) if accepts_reroute else None,
        auto_tier=auto_tier,
        now_ms=NOW_MS,
    )


def sent(trimmed: Trimmed) -> dict[str, object]:
    body: dict[str, object] = msgspec.json.decode(trimmed.call.body)
    return body


@pytest.mark.parametrize("caller", [LOW, LOW_KEY])
def test_level_1_sheds_low_priority_only_and_tells_when_to_come_back(caller: Caller) -> None:
    assert trim(chat(), brownout(Level.SHED)).call == chat()
    with pytest.raises(ModelBrownedOut) as refusal:
        trim(chat(), brownout(Level.SHED), caller=caller)
    assert refusal.value.retry_after_s == 60
    assert "too slow" in refusal.value.message


LOW_ACCOUNTS = [Caller(f"account-{number}", "key", priority="low") for number in range(1000)]
LOW_KEYS = [Caller("account", f"key-{number}", key_priority="low") for number in range(1000)]


@pytest.mark.parametrize("callers", [LOW_ACCOUNTS, LOW_KEYS])
def test_the_share_that_is_shed_is_as_large_as_it_says_and_stays_the_same(callers: list[Caller]) -> None:
    half, later = brownout(Level.SHED, shed_percent=50), brownout(Level.SHED, shed_percent=50, set_at_ms=NOW_MS + 1)

    shed = [each for each in callers if half.sheds(each)]
    assert 430 <= len(shed) <= 570
    assert shed == [each for each in callers if half.sheds(each)]
    assert shed != [each for each in callers if later.sheds(each)]


@pytest.mark.parametrize(
    ("account", "key", "can_be_shed"),
    [("normal", "normal", False), ("normal", "low", True), ("low", "normal", True), ("low", "low", True)],
)
def test_a_caller_is_of_low_priority_if_its_key_or_its_account_is(account: str, key: str, can_be_shed: bool) -> None:
    caller = Caller("account", "key", priority=account, key_priority=key)
    assert brownout(Level.SHED).sheds(caller) is can_be_shed
    assert not brownout(Level.SHED, shed_percent=0).sheds(caller)


def test_a_low_account_is_shed_with_all_its_keys_or_with_none() -> None:
    half = brownout(Level.SHED, shed_percent=50)
    for account in ("account-1", "account-2", "account-3"):
        keys = [Caller(account, f"key-{n}", priority="low", key_priority=("normal", "low")[n % 2]) for n in range(50)]
        assert len({half.sheds(each) for each in keys}) == 1


def test_level_2_caps_output_and_forces_the_default_tier() -> None:
    trimmed = trim(chat(max_tokens=4000, service_tier="priority"), brownout(Level.TRIM))

    assert sent(trimmed)["max_tokens"] == trimmed.call.output_limit == 500
    assert sent(trimmed)["service_tier"] == trimmed.call.service_tier == "default"
    assert trimmed.lines == b"x-gateway-brownout: level=2\r\nx-gateway-service-tier: default\r\n"


def test_level_2_leaves_alone_what_is_small_already() -> None:
    assert trim(chat(max_tokens=10), brownout(Level.TRIM)).call == chat(max_tokens=10)


def test_level_2_forces_the_default_tier_on_who_names_none_where_the_project_has_another() -> None:
    assert sent(trim(chat(), brownout(Level.TRIM), auto_tier="priority"))["service_tier"] == "default"
    assert "service_tier" not in sent(trim(chat(), brownout(Level.TRIM)))


def test_a_brownout_makes_no_call_dearer_than_it_was_asked_for() -> None:
    assert sent(trim(chat(service_tier="flex"), brownout(Level.TRIM)))["service_tier"] == "flex"


def test_level_2_sheds_too() -> None:
    with pytest.raises(ModelBrownedOut):
        trim(chat(), brownout(Level.TRIM), caller=LOW)


def test_level_3_reroutes_only_callers_who_allow_it() -> None:
    rerouted = trim(chat(max_tokens=4000), brownout(Level.REROUTE), accepts_reroute=True)
    stayed = trim(chat(max_tokens=4000), brownout(Level.REROUTE))

    assert sent(rerouted)["model"] == rerouted.call.model == "gpt-4o-mini"
    assert rerouted.call.output_limit == 4000
    assert rerouted.lines == b"x-gateway-rerouted: from=gpt-4o, to=gpt-4o-mini\r\n"
    assert (stayed.call.model, stayed.call.output_limit) == ("gpt-4o", 500)


def test_a_call_is_rerouted_once_and_reduced_as_the_other_model_is() -> None:
    back = brownout(Level.REROUTE, "gpt-4o-mini", reroute_to="gpt-4o", output_tokens=7)
    trimmed = trim(chat(), brownout(Level.REROUTE), back, accepts_reroute=True)

    assert (trimmed.call.model, trimmed.call.output_limit) == ("gpt-4o-mini", 7)
    with pytest.raises(ModelBrownedOut):
        trim(chat(), brownout(Level.REROUTE), brownout(Level.REFUSE, "gpt-4o-mini"), accepts_reroute=True)


def test_a_key_is_not_rerouted_to_a_model_that_it_may_not_use() -> None:
    caller = Caller("account", "key", restrictions=Restrictions(models=("gpt-4o",)))

    assert trim(chat(), brownout(Level.REROUTE), caller=caller, accepts_reroute=True).call.model == "gpt-4o"


def test_a_caller_is_not_rerouted_to_a_model_that_does_not_suit_it() -> None:
    assert trim(chat(), brownout(Level.REROUTE, reroute_to=DEARER), accepts_reroute=True).call.model == "gpt-4o"


def test_a_caller_is_not_rerouted_to_a_model_that_its_caps_do_not_allow() -> None:
    trimmed = trim(chat(), brownout(Level.REROUTE), caps=Caps(models_denied=("*-mini",)), accepts_reroute=True)
    assert (trimmed.call.model, trimmed.call.output_limit) == ("gpt-4o", 500)


def test_a_rerouted_call_asks_for_no_tier_that_the_other_model_may_not_have() -> None:
    rerouted = trim(chat(service_tier="priority"), brownout(Level.REROUTE), accepts_reroute=True)
    assert sent(rerouted)["service_tier"] == rerouted.call.service_tier == "default"
    assert rerouted.lines.endswith(b"x-gateway-service-tier: default\r\n")


@pytest.mark.parametrize(("level", "caller"), [(Level.REFUSE, ANYBODY), (Level.SHED, LOW)])
def test_a_session_can_be_refused_as_a_call_can(level: Level, caller: Caller) -> None:
    with pytest.raises(ModelBrownedOut):
        Brownouts((brownout(level),)).check_session("gpt-4o", caller, NOW_MS)
    Brownouts((brownout(level),)).check_session("o3", caller, NOW_MS)


def test_of_what_sessions_ask_for_nothing_large_is_kept() -> None:
    refusing = Brownouts((brownout(Level.REFUSE, "gpt-4o*"),))
    with pytest.raises(ModelBrownedOut):
        refusing.check_session("gpt-4o-" + "x" * 100_000, ANYBODY, NOW_MS)
    tracemalloc.start()
    for number in range(100):
        refusing.check_session(f"o{number}" + "x" * 100_000, ANYBODY, NOW_MS)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 1_000_000


def test_level_4_refuses_everybody_with_the_banner() -> None:
    with pytest.raises(ModelBrownedOut) as refusal:
        trim(chat(), brownout(Level.REFUSE, banner="Back at noon."), accepts_reroute=True)
    assert refusal.value.message == "gpt-4o is not served: Back at noon. Until 1970-01-01T00:17:40Z."


def test_a_family_is_browned_out_by_its_pattern_and_the_severest_holds() -> None:
    both = Brownouts((brownout(Level.TRIM, "gpt-4o*"), brownout(Level.REFUSE, "gpt-4*"), brownout(Level.SHED)))

    holding = [both.of(model, model) for model in ("gpt-4o", "gpt-4", "o3")]
    assert [each.models if each else None for each in holding] == ["gpt-4*", "gpt-4*", None]


def test_a_snapshot_shares_the_fate_of_its_family() -> None:
    with pytest.raises(ModelBrownedOut):
        trim(chat(model="gpt-4o-2024-08-06"), brownout(Level.REFUSE))


def test_a_family_is_rerouted_to_one_of_its_own() -> None:
    family = brownout(Level.REROUTE, "gpt-4o*")

    assert trim(chat(), family, accepts_reroute=True).call.model == "gpt-4o-mini"
    assert trim(chat(model="gpt-4o-mini"), family).call == chat(model="gpt-4o-mini")


def test_an_expired_brownout_concerns_nobody() -> None:
    assert brownouts_in_force([brownout(Level.REFUSE)], NOW_MS + 59_999) is not None
    assert brownouts_in_force([brownout(Level.REFUSE)], NOW_MS + 60_000) is None


def test_a_model_that_a_caller_spells_with_line_breaks_stays_on_one_line() -> None:
    call = chat(model="gpt-4o\r\nx-credits-cost: 0")

    assert trim(call, brownout(Level.REROUTE, "gpt-4o*"), accepts_reroute=True).lines.count(b"\r\n") == 1
