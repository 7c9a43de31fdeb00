"""Settings: which source goes over which, and mistakes with their key, line and nearest key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from banditroute.features.embedding import FEATURES, make_embedder
from banditroute.fitting.warm_start import fit
from banditroute.learn.prior import Prior
from banditroute.settings import DEMO_MODELS, Settings, SettingsError, load_settings

MODEL = "{name: m, input_price: 1, output_price: 2}"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes) -> Path:
        path = tmp_path / "banditroute.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_the_default_settings_are_the_demo() -> None:
    settings = load_settings()
    assert settings == Settings() and settings.port == 8_000
    assert settings.pools["default"].models == DEMO_MODELS
    assert settings.database == "sqlite:///banditroute.db"


def test_flags_go_over_the_environment_and_that_over_the_file(
    write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("port: 1001\nhost: file\nwrite_queue: 5\n")
    monkeypatch.setenv("BANDITROUTE_PORT", "1002")
    monkeypatch.setenv("BANDITROUTE_HOST", "environment")
    settings = load_settings(path, port=1003, host=None)
    assert (settings.port, settings.host, settings.write_queue) == (1003, "environment", 5)


def test_the_environment_reaches_below(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(f"pools:\n  a:\n    tau_cost: 1\n    default_quality: 1\n    models: [{MODEL}]\n")
    monkeypatch.setenv("BANDITROUTE_POOLS__A__TAU_COST", "2.5")
    monkeypatch.setenv("BANDITROUTE_DEFAULTS__FEEDBACK_TTL_S", "60")
    pool = load_settings(path).pools["a"]
    assert (pool.tau_cost, pool.default_quality, pool.models[0].name) == (2.5, 1.0, "m")
    assert load_settings(path).options_of("a").feedback_ttl_s == 60.0


def test_a_pool_goes_over_the_defaults_of_the_file(write: Any) -> None:
    path = write(
        "defaults: {tau_cost: 3, embedder: precomputed, embedding_dim: 8}\n"
        "pools:\n  a: {tau_cost: 4}\n  b: {policy: {name: random}}\n"
    )
    settings = load_settings(path)
    a, b, other = (settings.options_of(name) for name in ("a", "b", "made later"))
    assert (a.tau_cost, b.tau_cost, other.tau_cost) == (4.0, 3.0, 3.0)
    assert (a.policy.name, b.policy.name, b.embedding_dim) == ("thompson", "random", 8)
    assert settings.options_of("made later", {"tau_cost": 5.0}).tau_cost == 5.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot: 1", "prot (line 1): unknown key; did you mean 'port'?"),
        ("host: x\n\nreplica: 1", "replica (line 3): unknown key; did you mean 'replicas'?"),
        ("zzz: 1", "zzz (line 1): unknown key; valid: database, defaults, "),
        ("1: 2", "1 (line 1): unknown key"),
        ("defaults:\n  tau_cots: 1", "defaults.tau_cots (line 2): unknown key; did you mean 'tau_cost'?"),
        ("pools:\n  a:\n    embeder: hashing",
         "pools.a.embeder (line 3): unknown key; did you mean 'embedder'?"),
        ("pools:\n  a:\n    preference:\n      qualty: 1",
         "pools.a.preference.qualty (line 4): unknown key; did you mean 'quality'?"),
        ("pools:\n  a:\n    models:\n      - {nam: m, input_price: 1, output_price: 1}",
         "pools.a.models[0].nam (line 4): unknown key; did you mean 'name'?"),
        ("pools:\n  a:\n    models:\n      - {input_price: 1, output_price: 1}",
         "pools.a.models[0].name (line 4): Field required"),
        (f"pools:\n  a:\n    models: [{MODEL}, {MODEL}]", "pools.a.models (line 3): 'm' is there twice"),
        ("port: 1\nport: 2", "port (line 2): given twice"),
        ("pools:\n  a: {}\n  b: {}\n  a: {}", "pools.a (line 4): given twice"),
        ("pools:\n  a:\n    policy:\n      alhpa: 1",
         "pools.a.policy.alhpa (line 4): unknown parameter of thompson; did you mean 'alpha'?"),
        ("pools:\n  a:\n    policy:\n      alpha: much", "pools.a.policy.alpha (line 4): not a valid"),
        ("pools:\n  a:\n    policy:\n      alpha: -1", "pools.a.policy.alpha (line 4): positive, not -1"),
        ("pools:\n  a:\n    policy: {name: lnucb}",
         "pools.a.policy.name (line 3): unknown policy 'lnucb'; did you mean 'linucb'?"),
        ("pools:\n  a:\n    embedder: hasing",
         "pools.a.embedder (line 3): unknown embedder 'hasing'; did you mean 'hashing'?"),
        ("pools:\n  a:\n    embedder: precomputed", "pools.a (line 2): embedding_dim: required"),
        ("pools:\n  a:\n    embedding_dim: 7", "pools.a.embedding_dim (line 3): vectors of embedder"),
        ("pools:\n  '': {}", "String should have at least 1 character"),
        ("pools:\n  a:\n    policy: {name: fixed}\n    models: [{name: m, input_price: 1, output_price: 1}]",
         "pools.a.policy.arm: required"),
        ("defaults:\n  feedback_ttl_s: 1e12", "defaults.feedback_ttl_s (line 2): Input should be less"),
        ("port: 0", "port (line 1): Input should be greater than or equal to 1"),
        ("port: 65536", "port (line 1): Input should be less than or equal to 65535"),
        ("port: many", "port (line 1): Input should be a valid integer"),
        ("replicas: 0", "replicas (line 1): Input should be greater"),
        ("max_body_bytes: 999", "max_body_bytes (line 1): Input should be greater"),
        ("defaults:\n  min_propensity: 0.5", "defaults.min_propensity (line 2): Input should be less"),
        ("defaults:\n  exploration_share: 1", "defaults.exploration_share (line 2): Input should be"),
        ("defaults:\n  default_quality: 1.5", "defaults.default_quality (line 2): Input should be"),
        ("defaults:\n  feedback_ttl_s: .nan", "defaults.feedback_ttl_s (line 2): Input should be"),
        ("defaults:\n  tau_cost: 0", "defaults.tau_cost (line 2): Input should be greater than 0"),
        ("defaults:\n  preference: {quality: 0}", "at least one weight must be above 0"),
        ("pools: []", "pools (line 1): Input should be a valid dictionary"),
        ("- a", "a mapping of keys is expected"),
        ("just words", "a mapping of keys is expected"),
        ("port: [", "not YAML"),
        ("port: !!python/object:os.system x", "not YAML"),
        (b"host: \xff", "can't decode"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_key_and_line(write: Any, text: str | bytes, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(text))
    assert message in str(caught.value)


@pytest.mark.parametrize("where", ["pools.a", "defaults"])
def test_a_prior_that_does_not_fit_names_its_key(write: Any, where: str, tmp_path: Path) -> None:
    good, other = tmp_path / "good.npz", tmp_path / "other.npz"
    x = np.ones((2, FEATURES), dtype=np.float32)
    arrays = fit(x, {"m": np.ones(2)}, n_effective=1.0)
    Prior("sums", make_embedder().identity, arrays).write(good)
    Prior("sums", "hashing-other", arrays).write(other)
    for options, message in (
        (f"prior: {tmp_path}/none", ".prior (line 2): " + f"{tmp_path}/none: No such file"),
        (f"prior: {write.__code__.co_filename}", ".prior (line 2): not a file of a fitted prior"),
        (f"prior: {other}", ".prior (line 2): fitted on features of embedder hashing-other"),
        (f"prior: {good}, policy: random", ".prior (line 2): random has no use"),
        (f"prior: {good}, tasks: [x]", f".prior (line 2): must have {FEATURES + 1} features, has"),
    ):
        text = (
            f"pools:\n  a: {{{options}}}"
            if where == "pools.a"
            else f"defaults:\n  {{{options}}}\npools: {{}}"
        )
        with pytest.raises(SettingsError) as caught:
            load_settings(write(text))
        assert str(caught.value).startswith(where + message)
    settings = load_settings(
        write(f"defaults: {{prior: {good}}}\npools: {{a: {{prior: null}}, b: {{}}}}")
    )
    assert [settings.options_of(name).prior for name in "ab"] == [None, str(good)]


def test_all_mistakes_are_reported_at_once(write: Any) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write("prot: 1\nhots: x\nreplicas: 0"))
    lines = str(caught.value).splitlines()
    assert sorted(line.split(" ")[0] for line in lines) == ["hots", "prot", "replicas"]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nothing\.yaml.*No such file"):
        load_settings(tmp_path / "nothing.yaml")


def test_an_empty_file_changes_nothing(write: Any) -> None:
    assert load_settings(write("")) == load_settings(write("# later")) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "BANDITROUTE_PROT",
            "1",
            "BANDITROUTE_PROT: unknown variable; did you mean 'BANDITROUTE_PORT'",
        ),
        (
            "BANDITROUTE_PORT",
            "many",
            "port (see BANDITROUTE_PORT in the environment): Input should",
        ),
        ("BANDITROUTE_DEFAULTS__TAU_COTS", "1", "defaults.tau_cots (see BANDITROUTE_DEFAULTS in"),
        ("BANDITROUTE_POOLS", "{", 'value for field "pools"'),
    ],
)
def test_a_mistake_in_the_environment_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert message in str(caught.value)


def test_the_client_s_variable_is_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDITROUTE_URL", "http://127.0.0.1:1")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": 70_000}, "port: Input should be less than or equal to 65535"),
        ({"replicas": 0}, "replicas: Input should be greater than or equal to 1"),
        ({"databse": "x"}, "databse: unknown key; did you mean 'database'?"),
        ({"pools": {"a": {"modles": []}}}, "pools.a.modles: unknown key; did you mean 'models'?"),
        ({"pools": {"a": {"policy": {"alhpa": 1}}}}, "pools.a.policy.alhpa: unknown parameter"),
    ],
)
def test_flags_are_held_to_the_same_rules(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, **flags)
    assert message in str(caught.value)


def test_settings_survive_being_passed_on_as_plain_values(write: Any) -> None:
    path = write(f"hash_key: secret\npools:\n  a:\n    tau_cost: 2\n    models: [{MODEL}]\n")
    settings = load_settings(path, port=81)
    plain = settings.model_dump(exclude_unset=True) | {"hash_key": settings.hash_key}
    again = load_settings(None, **plain)
    assert again == settings and again.pools["a"].models[0].name == "m"
    assert again.own_options("a") == {"tau_cost": 2.0}


def test_secrets_are_not_shown() -> None:
    settings = load_settings(None, hash_key="very secret")
    assert isinstance(settings.hash_key, SecretStr) and "very secret" not in repr(settings)
