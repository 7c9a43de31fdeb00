"""Windows before they are full, after they wrap around, and when an arm has left them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from support.spells import ARMS, DIM, log, trained

from policies import Outcome, make_policy
from policies.discounted import UNTRIED
from policies.linucb import LinUCB
from policies.windowed import SWUCB, SWLinUCB

X = np.ones(DIM, dtype=np.float32)


def story(*pairs: tuple[str, float]) -> list[Outcome]:
    return [Outcome(s, "d", arm, X, "quality", value) for s, (arm, value) in enumerate(pairs, 1)]


def slow_index(
    outcomes: Sequence[Outcome], arm: str, window: int, xi: float, bound: float
) -> float:
    """Return mean + B sqrt(xi log(min(t, tau)) / N) over the last tau outcomes."""
    mine = [o.value for o in outcomes[-window:] if o.arm == arm]
    if not mine:
        return math.inf
    width = bound * math.sqrt(xi * math.log(min(len(outcomes), window)) / len(mine))
    return sum(mine) / len(mine) + width


@pytest.mark.parametrize("window", [1, 2, 7, 50, 1_000])
def test_indices_are_those_of_the_slow_reference(window: int) -> None:
    outcomes = log(130, 2)
    policy = trained(SWUCB(dim=DIM, window=window, xi=0.7, bound=1.5), [], ARMS)
    for t, outcome in enumerate(outcomes, start=1):
        policy.learn([outcome])
        policy.refresh()
        for k, arm in enumerate(ARMS):
            wanted = slow_index(outcomes[:t], arm, window, 0.7, 1.5)
            found = float(policy.view["index"][k] + policy.view["bonus"][k])
            if math.isinf(wanted):
                assert policy.view["bonus"][k] == UNTRIED
            else:
                assert found == pytest.approx(wanted, rel=2e-6)


@pytest.mark.parametrize(
    ("window", "t", "logarithm"), [(4, 3, 3), (4, 4, 4), (4, 5, 4), (4, 400, 4), (1, 9, 1)]
)
def test_the_logarithm_is_of_the_smaller_of_time_and_window(
    window: int, t: int, logarithm: int
) -> None:
    """One public implementation takes the larger, so its bonus never stops growing."""
    policy = trained(SWUCB(dim=DIM, window=window, xi=1.0), story(*[("a", 0.5)] * t))
    held = min(t, window)
    assert policy.view["bonus"][0] == pytest.approx(math.sqrt(math.log(logarithm) / held), rel=1e-6)
    assert policy.view["index"][0] == 0.5


def test_an_arm_that_falls_out_of_the_window_is_untried_again() -> None:
    pairs = [("a", 1.0), ("b", 0.0), ("b", 0.0), ("b", 0.0)]
    policy = trained(SWUCB(dim=DIM, window=3), story(*pairs))
    assert policy.view["bonus"].tolist()[0] == UNTRIED
    assert policy.view["bonus"].tolist()[1] < 1.0
    kept = trained(SWUCB(dim=DIM, window=4), story(*pairs))
    assert kept.view["bonus"][0] < 1.0 and kept.view["index"][0] == 1.0


@pytest.mark.parametrize("name", ["sw-ucb", "sw-linucb"])
def test_only_the_window_matters(name: str) -> None:
    """Outcomes before the last `window` ones leave no trace but their number."""
    outcomes, other = log(200, 3), log(200, 4)
    one = trained(make_policy(name, dim=DIM, params={"window": 50}), outcomes)
    two = trained(
        make_policy(name, dim=DIM, params={"window": 50}), [*other[:150], *outcomes[150:]]
    )
    for key, array in one.publish().items():
        if key != "pulls":
            assert array.tobytes() == two.publish()[key].tobytes(), key


@pytest.mark.parametrize("n", [30, 40, 41, 150])
def test_the_linear_one_is_linucb_on_the_window(n: int) -> None:
    outcomes = log(n, 6)
    ours = trained(SWLinUCB(dim=DIM, window=40, alpha=1.0), outcomes)
    fresh = trained(LinUCB(dim=DIM, alpha=1.0), outcomes[-40:])
    x = np.stack([o.x for o in log(20, 8)])
    for mine, theirs in zip(ours.estimate(x), fresh.estimate(x), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)


def test_the_theoretical_width_follows_the_window() -> None:
    params = {"width": "theoretical"}
    ours = trained(make_policy("sw-linucb", dim=DIM, params=params | {"window": 40}), log(150, 6))
    fresh = trained(make_policy("linucb", dim=DIM, params=params), log(150, 6)[-40:])
    np.testing.assert_allclose(ours.view["width"], fresh.view["width"], rtol=1e-5)


@pytest.mark.parametrize("name", ["sw-ucb", "sw-linucb"])
@pytest.mark.parametrize(("worth", "left"), [(0.0, 0), (1.0, 1), (2.5, 3), (99.0, 5)])
def test_a_reset_keeps_the_newest_outcomes_of_the_arm(name: str, worth: float, left: int) -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5]
    pairs = [pair for v in values for pair in (("a", v), ("b", 0.9))]
    policy = trained(make_policy(name, dim=DIM, params={"window": 12}), story(*pairs, ("c", 0.0)))
    policy.reset_arm("a", shift=-0.3, worth=worth)
    kept = policy.state()
    mine = kept["value"][kept["owner"] == 0]
    assert sorted(mine.tolist()) == values[len(values) - left :]
    assert (kept["owner"] == 1).sum() == 5
    policy.refresh()
    assert np.isfinite(policy.estimate(X[None])[0]).all()


def test_a_window_cannot_be_taught_sums() -> None:
    for name in ("sw-ucb", "sw-linucb"):
        policy = make_policy(name, dim=DIM)
        with pytest.raises(ValueError, match=f"^prior: {name} has no use"):
            policy.adopt({"arms": np.array(["a"]), "gram": np.zeros((1, DIM, DIM))})


@pytest.mark.parametrize("name", ["sw-ucb", "sw-linucb"])
def test_a_window_without_places_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="^window: in .1, 1e.06., not 0"):
        make_policy(name, dim=DIM, params={"window": 0})
