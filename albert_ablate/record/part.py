"""The base of all records: strict types; unknown fields are refused when writing and ignored when reading.

A field that a record may lack has a default. ``as_json`` omits fields that were never set, so an absent
field stays absent; a field that was set to None is written as null.
"""

from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from albert_ablate.errors import DamagedFileError
from albert_ablate.files import read_json, write_json

_READING = object()


def _within(low: float, high: float) -> WrapValidator:
    """A finite number, kept as computed (an integer stays one). Readers accept it from ``low`` to ``high``.

    Writers have no such bounds: a diverging run should still be recorded.
    """

    def validated(value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        check(value)
        if info.context is _READING and not low <= value <= high:
            raise PydanticCustomError("magnitude", "Input should be from {low} to {high}", {"low": low, "high": high})
        return value

    return WrapValidator(validated)


def _only_in_writing(value: Any, check: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    return value if info.context is _READING else check(value)


#: Annotates a field that its reader checks itself, so that a wrong value does not invalidate the record.
CheckedByReader = WrapValidator(_only_in_writing)
#: A count.
Whole = Annotated[int, Field(ge=0, le=2**63 - 1)]
#: A width or a depth.
Size = Annotated[int, Field(ge=1, le=2**31)]
#: A rate per second.
Rate = Annotated[float, _within(1e-9, 1e15)]
#: A number small enough to average and square.
Number = Annotated[float, _within(-1e30, 1e30)]
#: Lower and upper bound.
Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]


AnyPart = TypeVar("AnyPart", bound="Part")


class Part(BaseModel):
    """A record, or a part of one."""

    model_config = ConfigDict(
        strict=True, allow_inf_nan=False, extra="forbid", validate_assignment=True, populate_by_name=True,
        protected_namespaces=(),
    )  # fmt: skip

    @classmethod
    def read(cls, values: Any) -> Self:
        """Validate a file's content; unknown fields, as of another version, are ignored. Raises ValidationError."""
        return cls.model_validate(values, context=_READING)

    def as_json(self) -> dict[str, Any]:
        """The fields that were set, in order."""
        # No warnings: integers in float fields stay integers on purpose.
        return self.model_dump(by_alias=True, exclude_unset=True, warnings=False)

    @model_validator(mode="before")
    @classmethod
    def _ignore_unknown(cls, values: Any, info: ValidationInfo) -> Any:
        if info.context is not _READING or not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if cls._is_known(name, value)}

    @classmethod
    def _is_known(cls, name: str, value: Any) -> bool:
        """Whether a reader uses a field."""
        return any(name == (field.alias or key) for key, field in cls.model_fields.items())


def write_record(path: Path, record: Part) -> None:
    """Write ``record`` as a JSON file, atomically."""
    write_json(path, record.as_json())


def field_of(problem: ErrorDetails) -> str:
    """The wrong field, such as ``masked_lm.loss``; empty if the file is no record at all."""
    return ".".join(map(str, problem["loc"]))


def load_record(path: Path, form: type[AnyPart]) -> AnyPart:
    """Read a record. Raises DamagedFileError that names the first wrong field."""
    try:
        return form.read(read_json(path))
    except ValidationError as error:
        problem = error.errors()[0]
        where = f"{field_of(problem)}: " if problem["loc"] else ""
        raise DamagedFileError(f"{path} is damaged ({where}{problem['msg']}).") from error


def amend_record(path: Path, changes: Part) -> None:
    """Replace the fields of a JSON file that ``changes`` has set; other fields, of any version, are kept.

    Raises DamagedFileError if the file does not parse.
    """
    write_json(path, read_json(path) | changes.as_json())
