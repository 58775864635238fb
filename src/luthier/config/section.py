"""What all sections of settings have in common."""

from __future__ import annotations

import math
from typing import Any, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

LARGEST = 2**63 - 1  # a whole number in 64 bits


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any, info: ValidationInfo) -> Any:
        """A single text where several may stand, as people write it in YAML: `path: rows.jsonl`."""
        several = get_origin(cls.model_fields[str(info.field_name)].annotation) is tuple
        return (value,) if several and isinstance(value, str) else value

    @field_validator("*", mode="after")
    @classmethod
    def _can_be_computed_with(cls, value: Any) -> Any:
        """No number is infinite or larger than the libraries below take."""
        if isinstance(value, float) and not math.isfinite(value):
            raise PydanticCustomError("finite", "should be a finite number")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise PydanticCustomError("large", f"should be {LARGEST:,} at most")
        return value
