"""The base class of sections, and the types that several sections use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, field_validator
from pydantic_core import CoreSchema, core_schema

from oncoshift.secrets import has_password
from oncoshift.settings.files import drop_variables

T = TypeVar("T")


def _refuse_repeats(names: tuple[T, ...]) -> tuple[T, ...]:
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"names {', '.join(repeated)} more than once")
    return names


Names = Annotated[tuple[T, ...], AfterValidator(_refuse_repeats)]
"""A list without repeats."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
StainVariant = Literal["none", "reinhard", "macenko", "vahadane"]
Organ = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


@dataclass(frozen=True)
class Range:
    """The range that tuning searches for a numeric setting, both ends included."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choices:
    """The values that tuning tries for any other setting; by default all that its type allows."""

    values: tuple[bool | int | float | str | None, ...] = ()


@dataclass(frozen=True)
class OneOf:
    """A constraint of a string to given names, like `Literal`, for names of a registry."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema by which pydantic checks a value and writes JSON schema and errors."""
        return core_schema.literal_schema(list(self.names))


class Section(BaseModel):
    """A frozen section of params.yaml that refuses unknown keys and values of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _convert_lists(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("*")
    @classmethod
    def _refuse_passwords(cls, value: Any) -> Any:
        """Refuse a password: settings, unlike values of variables, are logged and saved."""
        if isinstance(value, str) and has_password(drop_variables(value)):
            raise ValueError("it holds a password; write ${NAME} in its place, and set the environment variable NAME")
        return value
