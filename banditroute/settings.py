"""Settings: one YAML file, BANDITROUTE_ environment variables over it, flags over both.

Nothing is guessed: a key that is not known is an error that names the nearest valid one.
"""

from __future__ import annotations

import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as MalformedVariable

from banditroute.core.pool import ModelSpec, Name, PoolOptions
from banditroute.features.embedding import FEATURES
from banditroute.features.projection import HASHING_DIM
from banditroute.learn.prior import fitting
from policies import make_policy
from policies.params import nearest

ENV_PREFIX = "BANDITROUTE_"
Lines = Mapping[tuple[str, ...], int]
_CLIENT_ENV = {"BANDITROUTE_URL"}
_EMBEDDERS = ("hashing", "minilm", "precomputed")

DEMO_MODELS = [
    ModelSpec(name="small", input_price=0.05, output_price=0.2),
    ModelSpec(name="medium", input_price=0.5, output_price=2.0),
    ModelSpec(name="large", input_price=3.0, output_price=15.0),
]


class SettingsError(ValueError):
    """One line per mistake, each naming its key."""


class PoolFile(PoolOptions):
    """A pool in the file: its options over the file's defaults, and its models."""

    models: list[ModelSpec] = Field(default_factory=list)


class Settings(BaseSettings):
    """All that the daemon can be told; see the README for what each key does."""

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
        return env_settings, init_settings

    def options_of(self, pool: str, kept: Mapping[str, Any] | None = None) -> PoolOptions:
        """Return the options of a pool: its own, over those `kept` in SQL, over the defaults."""
        own: dict[str, Any] = dict(kept or {})
        if pool in self.pools:
            own = self.own_options(pool)
        return PoolOptions.model_validate(self.defaults.model_dump(exclude_unset=True) | own)

    def own_options(self, pool: str) -> dict[str, Any]:
        """Return what the file sets for this pool alone, its models left out."""
        return self.pools[pool].model_dump(mode="json", exclude_unset=True, exclude={"models"})


def load_settings(path: Path | None = None, **flags: Any) -> Settings:
    """Read settings.

    Parameters
    ----------
    path : YAML file; None means none.
    flags : what the command line sets; None is a flag that was not given.

    Raises
    ------
    SettingsError
        With every mistake found, each with its key and, where known, its line.
    """
    lines: dict[tuple[str, ...], int] = {}
    content: dict[str, Any] = {}
    if path is not None:
        content = _read(path, lines)
    unknown = [
        f"{name}: unknown variable{nearest(name, _known_variables())}"
        for name in os.environ
        if name.startswith(ENV_PREFIX)
        and name.removeprefix(ENV_PREFIX).split("__")[0].lower() not in Settings.model_fields
        and name not in _CLIENT_ENV
    ]
    if unknown:
        raise SettingsError("\n".join(unknown))
    try:
        settings = Settings(**{str(key): value for key, value in content.items()})
    except ValidationError as error:
        raise SettingsError(_explain(error, lines)) from None
    except MalformedVariable as error:
        raise SettingsError(f"{ENV_PREFIX}*: {error}: {error.__cause__}") from None
    given = {key: _flag(key, value) for key, value in flags.items() if value is not None}
    settings = settings.model_copy(update=given)
    for name in settings.pools:
        _check_pool(settings, name, lines)
    # Pools that are made over HTTP take the defaults as they are.
    _check_prior(settings.defaults, ("defaults", "prior"), lines)
    return settings


def _flag(key: str, value: Any) -> Any:
    if key not in Settings.model_fields:
        raise SettingsError(f"{key}: unknown key{nearest(key, list(Settings.model_fields))}")
    field = Settings.model_fields[key]
    try:
        kind: Any = Annotated[field.annotation, field]
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise SettingsError(_explain(error, {}, (key,))) from None


def _read(path: Path, lines: dict[tuple[str, ...], int]) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingsError(f"{path}: a mapping of keys is expected")
    _locate(node, (), lines)
    return content


def _locate(node: Any, at: tuple[str, ...], lines: dict[tuple[str, ...], int]) -> None:
    lines[at] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if (*at, str(key.value)) in lines:
                where = ".".join((*at, str(key.value)))
                raise SettingsError(f"{where} (line {key.start_mark.line + 1}): given twice")
            _locate(value, (*at, str(key.value)), lines)
            lines[(*at, str(key.value))] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _locate(value, (*at, str(index)), lines)


def _explain(error: ValidationError, lines: Lines, below: tuple[str, ...] = ()) -> str:
    found = []
    for problem in error.errors():
        at = below + tuple(str(part) for part in problem["loc"])
        line = _line(at[:-1] if problem["type"] == "missing" else at, lines)
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"unknown key{nearest(at[-1], _keys_at(at[:-1]))}"
        found.append(f"{'.'.join(at)}{line}: {message}")
    return "\n".join(found)


def _line(at: tuple[str, ...], lines: Lines) -> str:
    variable = f"{ENV_PREFIX}{at[0].upper()}" if at else ""
    if any(name == variable or name.startswith(f"{variable}__") for name in os.environ):
        return f" (see {variable} in the environment)"
    return f" (line {lines[at]})" if at in lines else ""


def _check_pool(settings: Settings, name: str, lines: Lines) -> None:
    try:
        options = settings.options_of(name)
    except ValidationError as error:
        raise SettingsError(_explain(error, lines, ("pools", name))) from None
    try:
        dim = FEATURES + len(options.tasks)
        policy = make_policy(options.policy.name, dim=dim, params=options.policy.params)
        for model in settings.pools[name].models:
            policy.add_arm(model.name)
    except ValueError as error:
        key, _, message = str(error).partition(": ")
        line = _line(("pools", name, "policy", key), lines)
        raise SettingsError(f"pools.{name}.policy.{key}{line}: {message}") from None
    kind = options.embedder
    if kind not in _EMBEDDERS and not kind.startswith("sentence-transformers:"):
        raise SettingsError(
            f"pools.{name}.embedder: unknown embedder {kind!r}{nearest(kind, _EMBEDDERS)}"
        )
    if kind == "hashing" and options.embedding_dim not in (None, HASHING_DIM):
        raise SettingsError(
            f"pools.{name}.embedding_dim: vectors of embedder 'hashing' have {HASHING_DIM} numbers"
        )
    names = [model.name for model in settings.pools[name].models]
    for twice in {model for model in names if names.count(model) > 1}:
        raise SettingsError(f"pools.{name}.models: {twice!r} is there twice")
    _check_prior(options, ("pools", name, "prior"), lines, names)


def _check_prior(
    options: PoolOptions, at: tuple[str, ...], lines: Lines, models: Sequence[str] = ()
) -> None:
    try:
        prior = fitting(options)
        known = [] if prior is None else prior.arrays["arms"].tolist()
        if known and models and not set(known) & set(models):
            raise ValueError(f"it knows none of the pool's models, but {', '.join(known[:4])}")
    except (ValueError, ImportError) as error:
        message = str(error).removeprefix("prior: ")
        raise SettingsError(f"{'.'.join(at)}{_line(at, lines)}: {message}") from None


def _keys_at(path: Sequence[str]) -> list[str]:
    """Return the keys that are valid below `path`, by walking the models."""
    model: Any = Settings
    for part in path:
        if isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            model = model.model_fields[part].annotation
        else:  # an entry of a list or of a mapping
            model = typing.get_args(model)[-1] if typing.get_args(model) else model
        if isinstance(model, types.UnionType):
            model = next(arg for arg in typing.get_args(model) if arg is not type(None))
    known = isinstance(model, type) and issubclass(model, BaseModel)
    return list(model.model_fields) if known else []


def _known_variables() -> list[str]:
    return [ENV_PREFIX + name.upper() for name in Settings.model_fields]
