"""What Prometheus reads: counts of what happened, no ids, no text, no NaN."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from support.served_daemon import Served


def samples(served: Served) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = served.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "nan" not in answer.text.lower()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_daemon_without_requests_can_be_scraped(served: Served) -> None:
    found = samples(served)
    assert found["banditroute_writes_waiting", ()] == 0.0
    assert found["banditroute_policy_version", (("pool", "default"),)] == 4.0


def test_decisions_refusals_feedback_and_answers_are_counted(served: Served) -> None:
    rows = [{"prompt": "secret words", "models": ["small"]}] * 3
    served.post("/v1/route/batch", {"requests": [*rows, {"prompt": "x", "max_cost_usd": 0}]})
    decision = served.route(models=["large"])["decision_id"]
    for _ in range(2):
        served.feedback(decision, quality=1)
    served.post("/v1/feedback", {"decision_id": "unknown", "quality": 1})
    served.post("/v1/route", {"prompt": ""})
    served.client.get("/no/such/path")
    state = served.policy()
    found = samples(served)

    def value(name: str, **labels: str) -> float:
        return found[f"banditroute_{name}", tuple(sorted(labels.items()))]

    assert value("decisions_total", pool="default", model="small") == 3.0
    assert value("decisions_total", pool="default", model="large") == 1.0
    assert value("refused_total", pool="default") == 1.0
    assert value("decide_seconds_count", pool="default") == 2.0
    for status in ("accepted", "duplicate", "unknown"):
        assert value("feedback_total", status=status) == 1.0
    assert value("http_seconds_count", route="route", status="200") == 1.0
    assert value("http_seconds_count", route="route", status="400") == 1.0
    assert value("http_seconds_count", route="feedback", status="404") == 1.0
    assert value("http_seconds_count", route="none", status="404") == 1.0
    assert value("policy_version", pool="default") == state["version"]
    text = served.client.get("/metrics").text
    assert decision not in text and "secret" not in text and "/no/such" not in text


def test_a_rejected_batch_counts_no_decision(served: Served) -> None:
    served.post("/v1/route/batch", {"requests": [{"prompt": "x"}, {"prompt": "x", "pool": "no"}]})
    served.post("/v1/route/batch", {"requests": [{"prompt": "x"}, {"prompt": " "}]})
    assert not [name for name, _ in samples(served) if name.startswith("banditroute_decisions")]
