"""Load, validate and modify params.yaml. Imports neither torch nor mlflow, so mistakes are reported immediately."""

import copy
import difflib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from pipeline.config import architectures, conflicts
from pipeline.config.schema import Params
from pipeline.config.section import Section, flatten, nested
from pipeline.errors import ParamsError

SectionT = TypeVar("SectionT", bound=Section)

DEEPEST, LONGEST, MOST = 20, 4000, 10_000
"""Levels of a YAML file, of which parameters have six at most, characters of a value (URLs are long), and values."""


def parse_architecture(arch: str, values: Any) -> BaseModel:
    """Validate the JSON-able values of one architecture's section.

    Raises:
        ValueError: there is no such architecture, or the values are invalid.
    """
    if arch not in architectures.NAMES:
        raise ValueError(f"no architecture {arch!r}")
    return architectures.params_of(arch).model_validate_json(json.dumps(values))


def load(path: Path) -> Params:
    """Read and validate a params.yaml.

    Raises:
        ParamsError: the file is missing, is not YAML, or has mistakes; one line for each mistake.
    """
    return validate(read(path), str(path))


def read(path: Path) -> Any:
    """Read a YAML file without validation.

    Raises:
        ParamsError: the file is missing or is not YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _check_structure(text, path)
        return YAML(typ="safe").load(text)  # YAML 1.2 like DVC's own reader: 1e-3 is a number, `off` is a string
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run the stages from the repository's root") from None
    except MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ParamsError(f"{path}{where}: not valid YAML: {error.problem}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None


def _check_structure(text: str, path: Path) -> None:
    """Refuse what could take all memory or never end when it is loaded: aliases of aliases, nesting without end."""
    sizes: dict[str, int] = {}  # of what each anchor stands for, with its own aliases replaced
    opened: list[tuple[str | None, int]] = []  # collections: anchor, and the values before it
    values = 0
    for event in YAML(typ="safe").parse(text):
        problem = ""
        if isinstance(event, AliasEvent):
            if event.anchor in (anchor for anchor, _ in opened):
                problem = f"the alias *{event.anchor} is part of what it stands for"
            values += sizes.get(event.anchor, 1)
        elif isinstance(event, CollectionStartEvent):
            opened.append((event.anchor, values))
            values += 1
        elif isinstance(event, CollectionEndEvent):
            anchor, before = opened.pop()
            sizes |= {anchor: values - before} if anchor else {}
        elif isinstance(event, ScalarEvent):
            values += 1
            if len(event.value) > LONGEST:
                problem = f"found a value of {len(event.value)} characters, expected at most {LONGEST}"
        if values > MOST:
            problem = f"found more than {MOST:,} values, counting what aliases stand for"
        elif len(opened) > DEEPEST:
            problem = f"found values in {len(opened)} levels, expected at most {DEEPEST}"
        if problem:
            raise ParamsError(f"{path}, line {event.start_mark.line + 1}: {problem}")


def validate(tree: Any, source: str, *, combinations: bool = True) -> Params:
    """Validate the content of a params.yaml.

    Args:
        source: where the values come from, for error messages.
        combinations: also check combinations of values that are each in range.

    Raises:
        ParamsError: there are mistakes; one line for each mistake.
    """
    params = parse(Params, tree, source)
    mistakes = [f"{source}: {mistake}" for mistake in conflicts.found(params)] if combinations else []
    if mistakes:
        raise ParamsError("\n".join(mistakes))
    return params


def parse(model: type[SectionT], tree: Any, source: str) -> SectionT:
    """Validate the content of a YAML file.

    Args:
        model: the section that describes the file.
        source: where the values come from, for error messages.

    Raises:
        ParamsError: there are mistakes; one line for each mistake.
    """
    try:
        content = json.dumps(tree, default=str)
    except TypeError:
        raise ParamsError(f"{source}: found a list as the name of a parameter, expected text") from None
    try:
        return model.model_validate_json(content)  # in JSON mode strict types still let a list become a tuple
    except ValidationError as error:
        raise ParamsError("\n".join(f"{source}: {_line(detail, model)}" for detail in error.errors())) from None


def changed(tree: Any, values: Mapping[str, Any]) -> Any:
    """Return a copy of the content of params.yaml with some values replaced: `{"train.epochs": 4}`."""
    result = copy.deepcopy(tree)
    for key, value in values.items():
        *sections, last = key.split(".")
        section = result
        for name in sections:
            section = section[name]
        section[last] = value
    return result


def differing(values: Mapping[str, Any], tree: Any) -> dict[str, Any]:
    """Return the flat values that differ from those in the content of a params.yaml, or are not in it."""
    known = dict(flatten(tree)) if isinstance(tree, Mapping) else {}
    return {key: value for key, value in values.items() if key not in known or known[key] != value}


def unknown(key: str, known: Collection[str]) -> str | None:
    """Return an error message with the closest match if a full name is no parameter, else None."""
    if key in known:
        return None
    close = difflib.get_close_matches(key, known, n=1)
    return f"{key}: unknown parameter{f'; did you mean {close[0]}?' if close else ''}"


def refusal(tree: Any, key: str, value: Any) -> str | None:
    """Return why a parameter cannot have a value with all others unchanged, in one line; None if it can."""
    try:
        validate(changed(tree, {key: value}), "", combinations=False)
    except ParamsError as error:
        return str(error).splitlines()[0].removeprefix(": ")
    return None


def _key(loc: tuple[int | str, ...]) -> str:
    parts = (part for part in loc if part != "[key]")  # which pydantic adds for invalid keys of a mapping
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")


def _line(detail: ErrorDetails, model: type[Section]) -> str:
    """Return one line with the key, the found value and the expected ones."""
    key = _key(detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _keys_beside(detail["loc"], model)
        close = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
        return f"{key}: unknown key; {hint}"
    if detail["type"] == "missing":
        return f"{key}: missing; it has no default"
    found = json.dumps(detail["input"], default=str)
    found = found if len(found) <= 60 else found[:57] + "..."
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ").removeprefix("expected ")
    return f"{key or 'the file'}: found {found}, expected {message[0].lower()}{message[1:]}"


def _keys_beside(loc: tuple[int | str, ...], model: type[Section]) -> list[str]:
    """Return the keys of the section in which the unknown key `loc` was found."""
    section: Any = model
    for part in loc[:-1]:
        if isinstance(part, str):  # an index is into a tuple of sections, which nested() has looked through
            section = nested(section.model_fields[part].annotation)
    return list(section.model_fields)
