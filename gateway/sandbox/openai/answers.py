"""Answers: the table of endpoints, and what each answers to one request. Pure: nothing here waits or writes."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from gateway.sandbox.openai import errors
from gateway.sandbox.openai.asks import CHAT, COMPLETIONS, RESPONSES, read_text_ask
from gateway.sandbox.openai.catalogue import model_body, models_body, moderations_body, read_moderations_ask
from gateway.sandbox.openai.completions import Event, completion_body, completion_events
from gateway.sandbox.openai.embeddings import embeddings_body, embeddings_counts, read_embeddings_ask
from gateway.sandbox.openai.errors import ApiError
from gateway.sandbox.openai.plans import Plan, plan, report
from gateway.sandbox.openai.responses import response_body, response_events
from gateway.sandbox.openai.scenarios import Scenario
from gateway.sandbox.openai.tokens import TokenCounts

EMBEDDINGS = "/v1/embeddings"
MODERATIONS = "/v1/moderations"
MODELS = "/v1/models"
MODEL = "/v1/models/{model}"


class Question(msgspec.Struct, frozen=True, gc=False):
    """One request, as far as its answer depends on it."""

    endpoint: str
    body: bytes
    scenario: Scenario
    output_tokens: int
    answer_id: str
    created_s: int
    name: str = ""  # the model in the path


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What is answered: `body`, or for a stream the events of `plan`."""

    status: int = 200
    body: bytes = b""
    model: str = ""  # as asked
    served_model: str = ""
    tier: str = ""
    usage: TokenCounts = TokenCounts()  # of the whole answer
    usage_reported: bool = False
    words: int = 0  # that a whole body took to generate
    plan: Plan | None = None  # of a stream
    retry_after_s: int | None = None


def refusal(error: ApiError, scenario: Scenario) -> Answer:
    """The answer that says `error`; for what passes by itself, with the time to come back."""
    retry_after_s = 1 if scenario.retry_after is None else scenario.retry_after
    passes = error.status in (429, 503)
    return Answer(status=error.status, body=error.body(), retry_after_s=retry_after_s if passes else None)


def events(plan: Plan) -> Iterator[Event]:
    """The events of a streamed answer."""
    return response_events(plan) if plan.ask.endpoint == RESPONSES else completion_events(plan)


def _text(question: Question) -> Answer:
    ask = read_text_ask(question.endpoint, question.body)
    decided = plan(ask, question.scenario, question.output_tokens, question.answer_id, question.created_s)
    body = b""
    if not ask.stream:
        body = response_body(decided) if ask.endpoint == RESPONSES else completion_body(decided)
    return Answer(
        body=body,
        model=ask.model,
        served_model=question.scenario.model or ask.model,
        tier=decided.tier,
        usage=decided.produced(decided.words),
        usage_reported=decided.usage is not None,
        words=decided.words,
        plan=decided if ask.stream else None,
    )


def _embeddings(question: Question) -> Answer:
    ask = read_embeddings_ask(question.body)
    counts, orders = embeddings_counts(ask), question.scenario
    usage = None if orders.no_usage else report(EMBEDDINGS, counts, orders.absurd_usage)
    served = orders.model or ask.model
    return Answer(
        body=embeddings_body(ask, served, usage),
        model=ask.model,
        served_model=served,
        tier=orders.tier or "default",
        usage=counts,
        usage_reported=usage is not None,
    )


def _moderations(question: Question) -> Answer:
    ask = read_moderations_ask(question.body)
    served = question.scenario.model or ask.model
    return Answer(body=moderations_body(ask, served, question.answer_id), model=ask.model, served_model=served)


def _models(question: Question) -> Answer:
    return Answer(body=models_body())


def _model(question: Question) -> Answer:
    return Answer(body=model_body(question.name), model=question.name, served_model=question.name)


_Answers: TypeAlias = Callable[[Question], Answer]
ENDPOINTS: dict[str, tuple[str, _Answers]] = {
    CHAT: ("POST", _text),
    COMPLETIONS: ("POST", _text),
    RESPONSES: ("POST", _text),
    EMBEDDINGS: ("POST", _embeddings),
    MODERATIONS: ("POST", _moderations),
    MODELS: ("GET", _models),
    MODEL: ("GET", _model),
}


def answer(method: str, path: str, question: Question) -> Answer:
    """Answer one request; raises `ApiError` where OpenAI would refuse it."""
    if question.scenario.status is not None:
        raise errors.by_status(question.scenario.status)
    if question.endpoint not in ENDPOINTS:
        raise errors.path_unknown(method, path)
    expected, decide = ENDPOINTS[question.endpoint]
    if method != expected:
        raise errors.method_not_allowed(method, path)
    return decide(question)
