"""JSON Schemas that others wrote: nothing is fetched, no file is opened, and no value is looked at for longer than is allowed.

The `jsonschema` library checks; its keywords are wrapped here, so that patterns are searched with a limit of time and
everything else stops when the time is over: a schema of 30 lines can ask for 2^30 looks at a value.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from luthier.core.errors import InputError
from luthier.core.foreign.patterns import compiled
from luthier.core.storage.files import small_file

MAX_BYTES = 1 << 20  # bytes of a schema's file
DATA_KEYS = ("const", "enum", "default", "examples")  # keys whose values are no schemas
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
Keyword = Callable[..., Iterator[Any] | None]


def read_schema(path: Path, where: object) -> Any:
    """The JSON in a schema's file. Raises InputError when it cannot be read or is none."""
    try:
        return json.loads(small_file(path, MAX_BYTES))
    except InputError as error:
        raise InputError(f"{path} is {error.what}", where=where, fix="check the path") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", where=where, fix="check the path") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}", where=where, fix="fix the file") from None


class Schema:
    """A schema made ready. Raises InputError for one that is none, has a pattern that is none, or refers to what is not in it."""

    def __init__(self, schema: Any, where: object) -> None:
        from jsonschema import SchemaError, validators
        from jsonschema_specifications import REGISTRY

        self.where = where
        self.until = 0.0
        try:
            schema = json.loads(json.dumps(schema))  # keys that are numbers, dates and loops are no JSON
            if not isinstance(schema, dict | bool):
                raise ValueError(f"{schema!r:.60}")
            _check_parts(schema, where)
            kind = validators.validator_for(schema, default=validators.Draft202012Validator)
            kind.check_schema(schema)
            self._check_references(schema, kind.META_SCHEMA.get("$schema"), REGISTRY)
        except SchemaError as error:
            raise self._bad(f"not a JSON Schema: {error.message}", "fix the schema") from None
        except RecursionError:
            raise self._bad("a schema that nests too deeply", "write it with less nesting") from None
        except (
            TypeError,
            ValueError,
            AttributeError,
            LookupError,
        ) as error:  # the library's, of a $schema that is no text
            raise self._bad(f"not a JSON Schema: {error}", "fix the schema") from None
        timed = {name: self._timed(function) for name, function in kind.VALIDATORS.items()}
        self.validator = validators.extend(kind, {**timed, **self._searching()})(schema, registry=REGISTRY)
        self._try()

    def fault(self, value: Any, seconds: float) -> str:
        """What is wrong with a value, '' for nothing. Raises TimeoutError when that cannot be said in so many seconds."""
        from jsonschema.exceptions import best_match

        self.until = time.monotonic() + seconds
        error = best_match(self.validator.iter_errors(value))
        if error is None:
            return ""
        at = f" at {'/'.join(str(part) for part in error.absolute_path)}" if error.absolute_path else ""
        return f"does not fit the schema{at}: {error.message[:120]}"

    def _bad(self, what: str, fix: str) -> InputError:
        return InputError(what, where=self.where, fix=fix)

    def _try(self) -> None:
        """A schema that refers to itself without end does so for every value."""
        try:
            self.fault(None, 1.0)
        except RecursionError:
            raise self._bad("a schema that refers to itself without end", "let it refer to a part of it") from None
        except TimeoutError:
            raise self._bad(
                "a schema that takes longer than a second on null", "write it without repetitions"
            ) from None

    def _check_references(self, schema: Any, dialect: Any, registry: Any) -> None:
        from referencing.jsonschema import DRAFT202012, specification_with

        specification = specification_with(dialect, default=DRAFT202012) if dialect else DRAFT202012
        root = specification.create_resource(schema)
        parts = [(root, registry.resolver_with_root(root))]
        while parts:
            part, resolver = parts.pop()
            for reference in _references(part.contents):
                try:
                    resolver.lookup(reference)
                except Exception:  # whatever an address can break
                    what = f"the schema refers to {reference}, which is not in it"
                    raise self._bad(what, "put it under its $defs") from None
            parts += [(below, resolver.in_subresource(below)) for below in part.subresources()]

    def _left(self) -> float:
        """Seconds that are left. Raises TimeoutError when none are."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def _timed(self, function: Keyword) -> Keyword:
        def keyword(*about: Any) -> Iterator[Any]:
            self._left()
            yield from function(*about) or ()

        return keyword

    def _found(self, pattern: str, text: str) -> bool:
        return _pattern(pattern).search(text, timeout=self._left()) is not None

    def _searching(self) -> Mapping[str, Keyword]:
        """The keywords that search for patterns, as JSON Schema (draft 2020-12, validation 6.3.3, core 10.3.2) defines them."""
        from jsonschema import ValidationError

        def pattern(validator: Any, wanted: str, instance: Any, schema: Any) -> Iterator[Any]:
            if validator.is_type(instance, "string") and not self._found(wanted, instance):
                yield ValidationError(f"{instance!r} does not match {wanted!r}")

        def pattern_properties(validator: Any, wanted: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
            for name, below in wanted.items() if validator.is_type(instance, "object") else ():
                for key, value in instance.items():
                    if self._found(name, key):
                        yield from validator.descend(value, below, path=key, schema_path=name)

        def additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
            known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
            for key, value in instance.items() if validator.is_type(instance, "object") else ():
                if key in known or any(self._found(name, key) for name in patterns):
                    continue
                if validator.is_type(allowed, "object"):
                    yield from validator.descend(value, allowed, path=key)
                elif not allowed:
                    yield ValidationError(f"{key!r} is a property that is not allowed")

        return {
            "pattern": pattern,
            "patternProperties": pattern_properties,
            "additionalProperties": additional_properties,
        }


@cache
def _pattern(pattern: str) -> Any:
    return compiled(pattern, None)


def _references(contents: Any) -> list[str]:
    if not isinstance(contents, dict):
        return []
    return [contents[key] for key in REFERENCES if isinstance(contents.get(key), str)]


def _check_parts(schema: Any, where: object, within: bool = False) -> None:
    """Raise InputError for patterns that are none, and for the one keyword whose patterns cannot be searched with a limit.
    `within`: properties that nothing evaluated are refused here or above."""
    if isinstance(schema, list):
        for item in schema:
            _check_parts(item, where, within)
    if not isinstance(schema, dict):
        return
    within = within or "unevaluatedProperties" in schema
    patterns = schema.get("patternProperties")
    if isinstance(schema.get("pattern"), str):
        compiled(schema["pattern"], where)
    for name in patterns if isinstance(patterns, dict) else ():
        compiled(name, where)
    if within and isinstance(patterns, dict):
        raise InputError(
            "'patternProperties' below 'unevaluatedProperties' is not checked here", where=where,
            fix="use 'additionalProperties'",
        )  # fmt: skip
    for key, value in schema.items():
        if key not in DATA_KEYS:
            _check_parts(value, where, within)
