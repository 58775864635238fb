"""Tools and their calls as people write them -> plain JSON objects in OpenAI's form.

A fault raises InputError without a place; whoever knows the row adds file and line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from luthier.core.errors import InputError
from luthier.core.types.examples import TEMPLATE_GIVEN
from luthier.data.cell_values import structured

# Where a call's arguments and a tool's schema stand: OpenAI's name first, then Llama's and Anthropic's.
ARGUMENT_KEYS = ("arguments", "parameters", "input")
SCHEMA_KEYS = ("parameters", "input_schema")


def calls_of(value: Any, field: str) -> tuple[Mapping[str, Any], ...]:
    """Tool calls in OpenAI's form: [{"type": "function", "function": {"name": ..., "arguments": ...}}].

    Takes a list or a single call, each with or without the outer "function", as an object or as JSON text. Arguments
    stay what they are, an object or JSON text; a call without any has the empty object. Raises InputError for a call
    without a name, and for text that is not JSON.
    """
    value = json_of(value, field, "a tool call")
    calls = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_call(call, field) for call in calls)


def _call(call: Any, field: str) -> Mapping[str, Any]:
    call = json_of(call, field, "a tool call")
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InputError(f"field '{field}' has a tool call without a name", fix='write {"name": ..., "arguments": {}}')
    given = [function[name] for name in ARGUMENT_KEYS if function.get(name) not in (None, "")]
    if len(given) > 1:
        raise InputError(f"field '{field}' has a tool call with arguments under two names", fix="write 'arguments'")
    arguments = given[0] if given else {}
    json_of(arguments, field, "the arguments of a tool call")  # raises, if they are none
    own = function is call
    outer = {
        k: v for k, v in call.items() if v is not None and (k == "id" or not own) and k not in ("type", "function")
    }
    inner = {
        k: v for k, v in function.items() if v is not None and k not in ARGUMENT_KEYS and not (own and k in CALL_KEYS)
    }
    return {**outer, "type": "function", "function": {**inner, "arguments": arguments}}


CALL_KEYS = ("id", "type")  # keys of a call that stand beside its function


def tools_of(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Tool descriptions, a list or its JSON text, each as {"type": "function", "function": {...}}.

    Takes each with or without the outer "function", and Anthropic's `input_schema`. Raises InputError for anything
    else, and for a tool without a name.
    """
    value = json_of(value, "tools", "the tools")
    if not value:
        return ()
    if not isinstance(value, (list, tuple)):
        raise InputError("field 'tools' is not a list of tools", fix='write [{"name": ..., "parameters": {...}}]')
    return tuple(_tool(json_of(tool, "tools", "a tool")) for tool in value)


def _tool(tool: Any) -> Mapping[str, Any]:
    if not isinstance(tool, Mapping):
        raise InputError("field 'tools' is not a list of tools", fix='write [{"name": ..., "parameters": {...}}]')
    if isinstance(tool.get("function"), Mapping):
        return tool
    if not isinstance(tool.get("name"), str):
        raise InputError("field 'tools' has a tool without a name", fix='write {"name": ..., "parameters": {...}}')
    function = {
        ("parameters" if key in SCHEMA_KEYS else key): item for key, item in tool.items() if key not in CALL_KEYS
    }
    return {"type": "function", "function": function}


def kwargs_of(value: Any, field: str = "chat_template_kwargs") -> Mapping[str, Any]:
    """The values that a row gives its chat template, an object or its JSON text; a null among them is none.

    Raises InputError for anything else, and for names that stand for what templates are given anyway.
    """
    value = json_of(value, field, "the values of a template")
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"field '{field}' is not an object", fix='write {"enable_thinking": false}, say')
    if taken := next((name for name in TEMPLATE_GIVEN if name in value), None):
        raise InputError(f"field '{field}' cannot set '{taken}'", fix="leave it out of these values")
    return {str(name): item for name, item in value.items() if item is not None}


def json_of(value: Any, field: str, what: str) -> Any:
    """`value`, read where it is text of JSON, or as Python prints such values. Raises InputError for other text."""
    if not isinstance(value, str):
        return value
    try:
        return structured(value) if value.strip() else ()
    except ValueError:
        raise InputError(f"field '{field}': {what} is not JSON: {value[:60]!r}", fix="fix the JSON text") from None
