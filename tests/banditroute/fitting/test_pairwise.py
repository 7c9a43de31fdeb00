"""The fit of PILOT's prior: its losses by hand, planted preferences, and the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from numpy.typing import NDArray
from pyarrow import parquet
from typer.testing import CliRunner

from banditroute.cli import app
from banditroute.fitting import pairwise as preferences
from banditroute.fitting.pairs import Pairs
from banditroute.fitting.pairwise import (
    Fitted,
    PairwiseOptions,
    calibrate,
    draw_triplets,
    fit,
    triplet_candidates,
)
from banditroute.learn.prior import Prior
from policies.pilot import Pilot

needs_torch = pytest.mark.minilm
QUICK = PairwiseOptions(dims=6, epochs=5)
DIM = 6


def planted(
    n: int = 3_000, *, seed: int = 0, context: float = 3.0, levels: tuple[float, ...] = (0, 0, 2)
) -> tuple[Pairs, NDArray[np.float64]]:
    """Return pairs of models that are good at one side of the first feature, and features."""
    rng = np.random.default_rng([7, seed])
    x = rng.normal(size=(300, DIM))
    x[:, -1] = 1.0
    taste = np.array([context, -context, 0.0])
    row, a = rng.integers(300, size=n), rng.integers(3, size=n)
    b = (a + rng.integers(1, 3, size=n)) % 3
    side = np.tanh(x[row, 0])
    odds = np.array(levels)[a] - np.array(levels)[b] + (taste[a] - taste[b]) * side
    won = (rng.random(n) < 1.0 / (1.0 + np.exp(-odds))).astype(np.float64)
    won[rng.random(n) < 0.1] = 0.5
    prompts = tuple(f"prompt {i}" for i in range(300))
    return Pairs(prompts, ("left", "plain", "right")[: len(levels)], row, a, b, won), x


# --- what needs no torch -------------------------------------------------------------------------


def small(*rows: tuple[int, int, int, float]) -> Pairs:
    row, a, b, won = (np.array(column) for column in zip(*rows, strict=True))
    return Pairs(("p", "q", "r", "s"), ("best", "mid", "low"), row, a, b, won.astype(float))


def test_hard_negatives_are_upsets() -> None:
    pairs = small(
        (0, 0, 1, 1.0), (0, 0, 2, 1.0), (1, 0, 1, 1.0), (3, 0, 2, 1.0),  # best wins
        (2, 0, 2, 0.0), (2, 0, 1, 0.0),  # and loses on r
        (0, 1, 2, 1.0), (1, 1, 2, 1.0), (2, 1, 2, 0.5),
    )  # fmt: skip
    assert np.argsort(-pairs.strength()).tolist() == [0, 1, 2]
    found = triplet_candidates(pairs)
    # mid lost only to the best; low has won on one prompt only.
    assert [(won.tolist(), hard.tolist()) for won, hard in found] == [([0, 1, 3], [2])]


def test_triplets_hold_another_win_and_a_hard_negative() -> None:
    choices = [(np.array([1, 4, 6]), np.array([2, 3])), (np.array([5, 7]), np.array([0]))]
    drawn = draw_triplets(choices, np.random.default_rng(0))
    assert sorted(drawn[:, 0].tolist()) == [1, 4, 5, 6, 7]
    for anchor, positive, negative in drawn.tolist():
        won, hard = choices[0] if anchor in (1, 4, 6) else choices[1]
        assert positive in won and positive != anchor and negative in hard
    assert draw_triplets([], np.random.default_rng(0)).shape == (0, 3)


def test_calibration_finds_planted_scales() -> None:
    rng = np.random.default_rng(3)
    parts = rng.normal(size=(20_000, 2))
    odds = parts @ [0.5, 0.25]
    won = (rng.random(len(odds)) < 1.0 / (1.0 + np.exp(-odds))).astype(np.float64)
    scale, support, context = calibrate(parts, won, np.arange(len(odds)))
    assert abs(scale - 0.5) < 0.05 and 0.8 < support < 1.0 and 0.4 < context < 0.55


def test_calibration_believes_nothing_that_is_chance() -> None:
    rng = np.random.default_rng(5)
    supports, contexts = [], []
    for _ in range(20):
        parts, won = rng.normal(size=(500, 2)), (rng.random(500) < 0.5).astype(np.float64)
        _, support, context = calibrate(parts, won, np.arange(500))
        supports.append(support)
        contexts.append(context * support)
    assert np.median(supports) == 0.0 and np.median(contexts) == 0.0


def test_calibration_counts_a_prompt_once() -> None:
    rng = np.random.default_rng(6)
    parts = rng.normal(size=(40, 2))
    won = (rng.random(40) < 1.0 / (1.0 + np.exp(-parts @ [2.0, 2.0]))).astype(np.float64)
    alone = calibrate(parts, won, np.arange(40))
    copies = calibrate(np.tile(parts, (50, 1)), np.tile(won, 50), np.tile(np.arange(40), 50))
    apart = calibrate(np.tile(parts, (50, 1)), np.tile(won, 50), np.arange(2_000))
    assert copies[1] < apart[1] - 0.2 and abs(copies[1] - alone[1]) < 0.3


def test_calibration_survives_winners_without_exception() -> None:
    parts = np.random.default_rng(8).normal(size=(200, 2))
    won = (parts[:, 0] > 0.0).astype(np.float64)
    scale, support, _ = calibrate(parts, won, np.arange(200))
    assert np.isfinite(scale) and scale > 1.0 and support > 0.5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dims", 2),
        ("dims", 5_000),
        ("margin", -0.1),
        ("margin", float("nan")),
        ("epochs", -1),
        ("rate", 0.0),
        ("anchor", -1.0),
        ("shrinkage", float("inf")),
        ("folds", 1),
        ("seed", -1),
    ],
)
def test_bad_options_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        PairwiseOptions(**{field: value})


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install 'banditroute\[embeddings\]'"):
        fit(*planted(20), QUICK)
    result = command(pair_file(tmp_path / "p.parquet"), "--out", tmp_path / "out.npz")
    assert result.exit_code == 2
    assert result.stderr == (
        "banditroute: fitting a prior needs torch: pip install 'banditroute[embeddings]'\n"
    )


# --- losses --------------------------------------------------------------------------------------


@needs_torch
def test_triplet_loss_by_hand() -> None:
    import torch

    psi = torch.tensor([[[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]])
    # Gaps of cosines: 0 - .6 and .6 - 0, so max(0, .2 - .6) and .2 + .6.
    loss = preferences.triplet_loss(torch, psi, 0.2)
    assert float(loss) == pytest.approx(0.4)


@needs_torch
def test_gradients_are_those_of_differences() -> None:
    import torch

    rng = np.random.default_rng(1)
    psi = torch.tensor(rng.normal(size=(5, 3, 4)), requires_grad=True)

    def triplet(at: Any) -> Any:
        unit = torch.nn.functional.normalize(at, dim=-1)
        return preferences.triplet_loss(torch, unit, 0.5)

    assert torch.autograd.gradcheck(triplet, (psi,))
    at = torch.tensor(rng.normal(size=(5, 4)))
    v = torch.tensor(rng.normal(size=(3, 4)), requires_grad=True)
    log_t = torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)
    a, b = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0, 2, 0])
    won = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0], dtype=torch.float64)

    def preference(v: Any, log_t: Any) -> Any:
        return preferences.preference_loss(torch, at, v, log_t, a, b, won, 0.1)

    assert torch.autograd.gradcheck(preference, (v, log_t))


@needs_torch
def test_one_step_draws_the_winner_to_the_prompt() -> None:
    import torch

    psi = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    v = torch.tensor([[0.6, 0.8], [0.6, 0.8]], dtype=torch.float64, requires_grad=True)
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    a, b, won = torch.tensor([0]), torch.tensor([1]), torch.ones(1, dtype=torch.float64)
    loss = preferences.preference_loss(torch, psi, v, log_t, a, b, won, 0.0)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(np.log(2.0))
    assert v.grad[0, 0] < 0.0 < v.grad[1, 0]


# --- planted preferences -------------------------------------------------------------------------


def rates(fitted: Fitted, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log-odds[n, M] of each model against the first."""
    arrays = fitted.arrays
    odds = preferences.map_prompts(x, arrays["projection"]) @ arrays["embeddings"].T
    return (odds - odds[:, :1]) / arrays["temperature"]


@needs_torch
def test_the_fit_recovers_planted_preferences() -> None:
    pairs, x = planted(2_000)
    ticks: list[None] = []
    fitted = fit(pairs, x, QUICK, tick=lambda: ticks.append(None))
    assert len(ticks) == preferences.rounds(QUICK)
    new = np.random.default_rng(12).normal(size=(200, DIM))
    new[:, -1] = 1.0
    odds = rates(fitted, new)
    expected = -6.0 * np.tanh(new[:, 0])
    assert np.corrcoef(odds[:, 1], expected)[0, 1] > 0.9
    assert (odds[:, 2] > odds[:, 1])[new[:, 0] > 0.5].all()
    assert fitted.loss < fitted.loss_of_levels - 0.1
    assert fitted.arrays["context"] > 0.7 and fitted.arrays["support"] > 0.7
    assert (fitted.arrays["accuracy"] > 0.7).all() and fitted.arrays["temperature"] < 1.0
    np.testing.assert_allclose(np.linalg.norm(fitted.arrays["embeddings"], axis=1), 1.0)


@needs_torch
def test_triplets_turn_the_map_to_what_decides() -> None:
    # Two coordinates of five directions alike: the principal axes know nothing of winners.
    pairs, x = planted(2_000)
    still, taught = (fit(pairs, x, PairwiseOptions(dims=3, epochs=epochs)) for epochs in (0, 30))
    assert taught.loss < still.loss - 0.02
    axis = [np.abs(f.arrays["projection"][:2, 0]).sum() for f in (still, taught)]
    assert axis[1] > axis[0]


@needs_torch
def test_the_temperature_reaches_odds_that_cosines_cannot() -> None:
    pairs, x = planted(context=0.0, levels=(0.0, 0.0, 5.0))
    fitted = fit(pairs, x, PairwiseOptions(dims=4, epochs=0, shrinkage=0.0))
    # Ties hold a tenth of the pairs at even odds; two cosines differ by 2 at most.
    assert np.median(rates(fitted, x)[:, 2]) > 2.2


@needs_torch
def test_without_context_none_is_kept() -> None:
    kept = [
        float(fit(*planted(600, seed=seed, context=0.0), QUICK).arrays["context"])
        for seed in range(3)
    ]
    assert np.median(kept) < 0.1


@needs_torch
def test_winners_by_chance_have_no_support() -> None:
    pairs, x = planted(600, context=0.0, levels=(0.0, 0.0, 0.0))
    assert fit(pairs, x, QUICK).arrays["support"] < 0.2


@needs_torch
@pytest.mark.parametrize("n", [2, 5])
def test_very_few_pairs_are_fitted(n: int) -> None:
    pairs, x = planted(n)
    fitted = fit(pairs, x, QUICK)
    assert all(np.isfinite(array).all() for name, array in fitted.arrays.items() if name != "arms")
    Pilot(dim=DIM).adopt(fitted.arrays)


@needs_torch
def test_a_seed_gives_the_same_bytes_and_they_come_back(tmp_path: Path) -> None:
    import torch

    dumps = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        dumps.append(Prior("pilot", "hashing-0", fit(*planted(300), QUICK).arrays).dump())
        assert torch.get_num_threads() == threads
    assert dumps[0] == dumps[1]
    other = fit(*planted(300), PairwiseOptions(dims=6, epochs=5, seed=1))
    assert Prior("pilot", "hashing-0", other.arrays).dump() != dumps[0]
    found = Prior.load(dumps[0])
    assert (found.kind, found.embedder) == ("pilot", "hashing-0")
    assert found.dump() == dumps[0]
    policy = Pilot(dim=DIM)
    policy.adopt(found.arrays)
    assert set(policy.anchors) == {"left", "plain", "right"}


# --- the command ---------------------------------------------------------------------------------


def pair_file(path: Path) -> Path:
    pairs, _ = planted(200)
    names = np.array(pairs.models)
    columns = {
        "prompt": [pairs.prompts[row] for row in pairs.row],
        "model_a": names[pairs.a].tolist(),
        "model_b": names[pairs.b].tolist(),
        "winner": [{1.0: "a", 0.0: "b", 0.5: "tie"}[won] for won in pairs.won.tolist()],
    }
    parquet.write_table(pyarrow.table(columns), path)
    return path


def command(*words: str | Path) -> Any:
    result = CliRunner().invoke(app, ["prior", "fit", *(str(word) for word in words)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@needs_torch
def test_the_command_writes_a_prior(tmp_path: Path) -> None:
    pairs, out = pair_file(tmp_path / "p.parquet"), tmp_path / "out.npz"
    result = command(pairs, "--out", out, "--dims", "4", "--epochs", "2", "--seed", "3")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{out}: 200 pairs of ")
    prior = Prior.read(out)
    assert prior.kind == "pilot" and prior.embedder.startswith("hashing-")
    assert prior.arrays["projection"].shape == (4, 47)
    policy = Pilot(dim=47)
    policy.adopt(prior.arrays)
    before = out.read_bytes()
    command(pairs, "--out", out, "--dims", "4", "--epochs", "2", "--seed", "3")
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dims", "2"], "dims: in [3, 1024], not 2"),
        (["--margin", "nan"], "margin: in [0, 2], not nan"),
        (["--epochs", "-1"], "epochs: in [0, 100000], not -1"),
        (["--seed", "-1"], "seed: in [0, 4.29497e+09], not -1"),
    ],
)
def test_the_command_refuses_bad_options(tmp_path: Path, words: list[str], message: str) -> None:
    pairs = pair_file(tmp_path / "p.parquet")
    result = command(pairs, "--out", tmp_path / "out.npz", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"banditroute: {message}\n"


def test_the_command_names_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    columns = {"prompt": ["p"], "model_a": ["x"], "model_b": ["y"], "winner": ["x"]}
    parquet.write_table(pyarrow.table(columns), path)
    result = command(path, "--out", tmp_path / "out.npz")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (f"banditroute: {path}: row 1, column 'winner': 'x' is not a, b, tie\n")


def test_the_command_wants_a_directory_that_exists(tmp_path: Path) -> None:
    out = tmp_path / "no" / "out.npz"
    result = command(pair_file(tmp_path / "p.parquet"), "--out", out)
    assert result.exit_code == 2
    assert result.stderr == f"banditroute: --out: there is no directory {out.parent}\n"


@needs_torch
@pytest.mark.parametrize("embedder", ["hash", "precomputed"])
def test_the_command_refuses_embedders_that_read_no_prompts(tmp_path: Path, embedder: str) -> None:
    pairs = pair_file(tmp_path / "p.parquet")
    result = command(pairs, "--out", tmp_path / "out.npz", "--embedder", embedder)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "embedder" in result.stderr and not (tmp_path / "out.npz").exists()
