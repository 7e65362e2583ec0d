"""What a section of the settings is, and the types that several sections use."""

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
"""A list in which nothing stands twice."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
StainVariant = Literal["none", "reinhard", "macenko", "vahadane"]
Organ = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]


@dataclass(frozen=True)
class Range:
    """What tuning may try for a numeric setting, both ends included."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Choices:
    """What tuning may try for any other setting; without values, all that a literal or a truth value can be."""

    values: tuple[bool | int | float | str | None, ...] = ()


@dataclass(frozen=True)
class OneOf:
    """Makes a string one of some names, as `Literal` does, where the names are those of a registry."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See pydantic: what checks a value, and makes the JSON schema and the errors."""
        return core_schema.literal_schema(list(self.names))


class Section(BaseModel):
    """A frozen section of params.yaml that refuses unknown keys and takes no word for a number or a truth value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _convert_lists(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("*")
    @classmethod
    def _refuse_passwords(cls, value: Any) -> Any:
        """Settings are logged, hashed and written to files; a variable in them is not."""
        if isinstance(value, str) and has_password(drop_variables(value)):
            raise ValueError("it holds a password; write ${NAME} in its place, and set the environment variable NAME")
        return value
