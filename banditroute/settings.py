"""Settings: a YAML file, ``BANDITROUTE_`` environment variables over it, and flags over both.

An unknown key is never ignored: it is an error that names the nearest valid key.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as MalformedVariable

from banditroute.core.mistakes import mistakes, path_of
from banditroute.core.pool import ModelSpec, Name, PoolOptions
from banditroute.core.yaml_file import DuplicateKeyError, YamlError, YamlFile, read_yaml
from banditroute.features.embedding import FEATURES
from banditroute.features.projection import HASHING_DIM
from banditroute.learn.prior import configured_prior
from policies import make_policy
from policies.params import nearest

ENV_PREFIX = "BANDITROUTE_"
_CLIENT_VARIABLES = {"BANDITROUTE_URL"}
_EMBEDDERS = ("hashing", "minilm", "precomputed")
_NO_FILE = YamlFile(None, None)

DEMO_MODELS = [
    ModelSpec(name="small", input_price=0.05, output_price=0.2),
    ModelSpec(name="medium", input_price=0.5, output_price=2.0),
    ModelSpec(name="large", input_price=3.0, output_price=15.0),
]


class SettingsError(ValueError):
    """Settings that cannot be used: one line for each mistake, its key in front."""


class PoolFile(PoolOptions):
    """A pool in the file.

    Attributes
    ----------
    models : list of ModelSpec
        The models of the pool and their prices.

    Notes
    -----
    All other keys are those of `PoolOptions`; they go over the `defaults` of the file.
    """

    models: list[ModelSpec] = Field(default_factory=list)


class Settings(BaseSettings):
    """All settings of the daemon; banditroute/README.md has an example of the file.

    Attributes
    ----------
    host : str
        Address to listen on.
    port : int
        Port to listen on.
    database : str
        SQLAlchemy URL of the log, SQLite or PostgreSQL.
    replicas : int
        Ray Serve replicas; SQLite serves only one.
    hash_key : SecretStr or None
        Secret for keyed hashes of prompts in the log; None stores no hashes.
    max_body_bytes : int
        Size limit of a request's body, in bytes.
    max_batch_body_bytes : int
        Size limit of a batch's body, in bytes.
    write_queue : int
        Number of writes that may wait for the writer.
    publish_ms : float
        Least time between two snapshots of the learner, in ms.
    defaults : PoolOptions
        Options of every pool that does not set them itself.
    pools : dict[str, PoolFile]
        Pools by name; without this key a demo pool.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65_535)
    database: str = "sqlite:///banditroute.db"
    replicas: int = Field(1, ge=1)
    hash_key: SecretStr | None = None
    max_body_bytes: int = Field(1_000_000, ge=1_000)
    max_batch_body_bytes: int = Field(32_000_000, ge=1_000)
    write_queue: int = Field(4_096, ge=1)
    publish_ms: float = Field(20.0, ge=1.0)
    defaults: PoolOptions = PoolOptions()
    pools: dict[Name, PoolFile] = Field(
        default_factory=lambda: {"default": PoolFile(models=DEMO_MODELS)}
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """See `BaseSettings.settings_customise_sources`; the environment goes over the file."""
        return env_settings, init_settings

    def options_of(self, pool: str, stored: Mapping[str, Any] | None = None) -> PoolOptions:
        """Return the options of a pool, over the defaults.

        Parameters
        ----------
        pool : str
            Name of the pool.
        stored : Mapping[str, Any] or None
            Options that the database has for a pool that the file does not have.
        """
        own = self.own_options(pool) if pool in self.pools else dict(stored or {})
        return PoolOptions.model_validate(self.defaults.model_dump(exclude_unset=True) | own)

    def own_options(self, pool: str) -> dict[str, Any]:
        """Return the options that the file sets for one pool, without its models.

        Parameters
        ----------
        pool : str
            Name of a pool in the file.
        """
        return self.pools[pool].model_dump(mode="json", exclude_unset=True, exclude={"models"})


def load_settings(path: Path | None = None, **flags: Any) -> Settings:
    """Return the settings of a file, the environment and the command line.

    Parameters
    ----------
    path : Path or None
        YAML file; None reads none.
    **flags : Any
        Settings from the command line; None means that a flag was not given.

    Raises
    ------
    SettingsError
        With all mistakes of the file and the environment, each with its key and, where known, its
        line. Mistakes in flags, policies and priors are reported one at a time.
    """
    file = _NO_FILE if path is None else _read(path)
    variables = [ENV_PREFIX + name.upper() for name in Settings.model_fields]
    unknown = [
        f"{name}: unknown variable{nearest(name, variables)}"
        for name in os.environ
        if name.startswith(ENV_PREFIX)
        and name.removeprefix(ENV_PREFIX).split("__")[0].lower() not in Settings.model_fields
        and name not in _CLIENT_VARIABLES
    ]
    if unknown:
        raise SettingsError("\n".join(unknown))
    try:
        settings = Settings(**{str(key): value for key, value in (file.content or {}).items()})
    except ValidationError as error:
        raise SettingsError(_explain(error, file)) from None
    except MalformedVariable as error:
        raise SettingsError(f"{ENV_PREFIX}*: {error}: {error.__cause__}") from None
    settings = settings.model_copy(
        update={key: _flag(key, value) for key, value in flags.items() if value is not None}
    )
    for name in settings.pools:
        _check_pool(settings, name, file)
    # Pools that are made over HTTP take the defaults as they are.
    _check_prior(settings.defaults, ("defaults", "prior"), file)
    return settings


def _read(path: Path) -> YamlFile:
    try:
        return read_yaml(path)
    except DuplicateKeyError as error:
        raise SettingsError(str(error)) from None
    except YamlError as error:
        raise SettingsError(f"{path}: {error}") from None


def _flag(key: str, value: Any) -> Any:
    """Return a setting from the command line as the type of its field."""
    if key not in Settings.model_fields:
        raise SettingsError(f"{key}: unknown key{nearest(key, list(Settings.model_fields))}")
    field = Settings.model_fields[key]
    try:
        kind: Any = Annotated[field.annotation, field]
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise SettingsError(_explain(error, _NO_FILE, (key,))) from None


def _explain(error: ValidationError, file: YamlFile, prefix: tuple[int | str, ...] = ()) -> str:
    """Return one line for each mistake; locations in `error` are below `prefix`."""
    lines = []
    for mistake in mistakes(error):
        location, reason = prefix + mistake.location, mistake.reason
        if mistake.kind == "extra_forbidden":
            reason = f"unknown key{nearest(str(location[-1]), _valid_keys(location[:-1]))}"
        holder = location[:-1] if mistake.kind == "missing" else location
        lines.append(f"{path_of(location)}{_source(holder, file)}: {reason}")
    return "\n".join(lines)


def _source(location: Sequence[int | str], file: YamlFile) -> str:
    """Return where a setting comes from, in brackets: its line or an environment variable."""
    variable = f"{ENV_PREFIX}{str(location[0]).upper()}" if location else ""
    if any(name == variable or name.startswith(f"{variable}__") for name in os.environ):
        return f" (see {variable} in the environment)"
    line = file.line(location)
    return "" if line is None else f" (line {line})"


def _check_pool(settings: Settings, name: str, file: YamlFile) -> None:
    """Raise SettingsError for a pool that could not start."""
    try:
        options = settings.options_of(name)
    except ValidationError as error:
        raise SettingsError(_explain(error, file, ("pools", name))) from None
    pool = ("pools", name)
    models = [model.name for model in settings.pools[name].models]
    try:
        dim = FEATURES + len(options.tasks)
        policy = make_policy(options.policy.name, dim=dim, params=options.policy.params)
        for model in models:
            policy.add_arm(model)
    except ValueError as error:
        key, _, reason = str(error).partition(": ")
        _refuse((*pool, "policy", key), reason, file)
    kind = options.embedder
    if kind not in _EMBEDDERS and not kind.startswith("sentence-transformers:"):
        _refuse((*pool, "embedder"), f"unknown embedder {kind!r}{nearest(kind, _EMBEDDERS)}", file)
    if kind == "hashing" and options.embedding_dim not in (None, HASHING_DIM):
        reason = f"vectors of embedder 'hashing' have {HASHING_DIM} numbers"
        _refuse((*pool, "embedding_dim"), reason, file)
    for model in models:
        if models.count(model) > 1:
            _refuse((*pool, "models"), f"{model!r} is there twice", file)
    _check_prior(options, (*pool, "prior"), file, models)


def _check_prior(
    options: PoolOptions, location: tuple[str, ...], file: YamlFile, models: Sequence[str] = ()
) -> None:
    """Raise SettingsError for a prior that a pool of these options and models could not use."""
    try:
        prior = configured_prior(options)
        arms = [] if prior is None else prior.arrays["arms"].tolist()
        if arms and models and not set(arms) & set(models):
            raise ValueError(f"it knows none of the pool's models, but {', '.join(arms[:4])}")
    except (ValueError, ImportError) as error:
        _refuse(location, str(error).removeprefix("prior: "), file)


def _refuse(location: Sequence[int | str], reason: str, file: YamlFile) -> NoReturn:
    raise SettingsError(f"{path_of(location)}{_source(location, file)}: {reason}") from None


def _valid_keys(location: Sequence[int | str]) -> list[str]:
    """Return the keys that may stand below a location, by walking the models."""
    model: Any = Settings
    for part in location:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            model = fields[part].annotation
        else:  # an entry of a list or of a mapping
            model = (typing.get_args(model) or (model,))[-1]
    return list(getattr(model, "model_fields", ()))
