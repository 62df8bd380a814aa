import pytest

from gateway.core.calls.endings import Ended, Fault
from gateway.core.calls.meter import Reading
from gateway.core.guard.breaker import Signal
from gateway.core.guard.signals import model_signal, upstream_signal


def reading(*, failed: bool = False, complete: bool = False, error: str = "") -> Reading:
    made = Reading()
    made.failed, made.complete, made.error = failed or bool(error), complete, error
    return made


@pytest.mark.parametrize(
    ("ended", "of_model", "of_upstream"),
    [
        (Ended(200), Signal.OK, Signal.OK),
        (Ended(200, caller_gone=True, cut=True, reading=reading(complete=True)), Signal.OK, Signal.OK),
        (Ended(200, caller_gone=True, cut=True), Signal.NEUTRAL, Signal.OK),
        (Ended(200, cut=True), Signal.ERROR, Signal.OK),
        (Ended(200, cut=True, is_out_of_slices=True), Signal.OK, Signal.OK),
        (Ended(200, reading=reading(failed=True)), Signal.ERROR, Signal.OK),
        (Ended(200, reading=reading(error="server_error")), Signal.ERROR, Signal.OK),
        (Ended(200, reading=reading(error="vector_store_timeout")), Signal.ERROR, Signal.OK),
        (Ended(200, reading=reading(error="rate_limit_exceeded")), Signal.THROTTLED, Signal.OK),
        (Ended(200, reading=reading(error="invalid_prompt")), Signal.NEUTRAL, Signal.OK),
        (Ended(200, reading=reading(error="image_parse_error")), Signal.NEUTRAL, Signal.OK),
        (Ended(200, reading=reading(error="failed_to_download_image")), Signal.NEUTRAL, Signal.OK),
        (Ended(200, reading=reading(error="invalid_request_error")), Signal.NEUTRAL, Signal.OK),
        (Ended(500), Signal.ERROR, Signal.OK),
        (Ended(503), Signal.ERROR, Signal.OK),
        (Ended(429), Signal.THROTTLED, Signal.OK),
        (Ended(400), Signal.NEUTRAL, Signal.OK),
        (Ended(401), Signal.NEUTRAL, Signal.OK),
        (Ended(404), Signal.NEUTRAL, Signal.OK),
        (Ended(fault=Fault.UNREACHABLE), Signal.UNREACHABLE, Signal.UNREACHABLE),
        (Ended(fault=Fault.TIMEOUT, cut=True), Signal.TIMEOUT, Signal.NEUTRAL),
        (Ended(fault=Fault.BROKEN, cut=True), Signal.ERROR, Signal.NEUTRAL),
        (Ended(caller_gone=True), Signal.NEUTRAL, Signal.NEUTRAL),
        (Ended(), Signal.NEUTRAL, Signal.NEUTRAL),  # the gateway's own pool was full
    ],
)
def test_what_an_ending_says_about_model_and_upstream(ended: Ended, of_model: Signal, of_upstream: Signal) -> None:
    assert (model_signal(ended), upstream_signal(ended)) == (of_model, of_upstream)
