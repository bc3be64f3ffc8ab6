"""The table of JSON-RPC methods: name, parameters, function. The table is the only dispatcher."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rpc.access import Role
from rpc.errors import RpcError
from rpc.params import Param
from rpc.schemas import ANYTHING, Schema

Handler = TypeVar("Handler", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `function` takes the caller and the parsed arguments; its docstring is the public description.

    `many`, where there is one, takes the argument lists of several calls that stand together in a batch, and gives a
    result or an exception for each. `room` raises what so many calls would meet now whatever they carry, so that they
    need not be read. To clients below `role` there is no such method. `cost` is what a call takes from the client's
    quota: 1 for what is looked up, about as many as it takes times as long for others. `result` describes what it
    gives, `errors` how it may refuse besides what any request with parameters may meet.
    """

    name: str
    params: tuple[Param, ...]
    function: Callable[..., Any]
    is_async: bool
    many: Callable[..., Any] | None
    result: Schema
    role: Role = Role.PUBLIC
    cost: int = 1
    errors: tuple[type[RpcError], ...] = ()
    room: Callable[[Any, int], None] | None = None

    @property
    def description(self) -> str:
        return inspect.getdoc(self.function) or ""


@dataclass(frozen=True, slots=True)
class Registry:
    """Methods by name."""

    methods: dict[str, Method] = field(default_factory=dict)

    def method(
        self,
        name: str,
        *params: Param,
        many: Callable[..., Any] | None = None,
        result: Schema = ANYTHING,
        role: Role = Role.PUBLIC,
        cost: int = 1,
        errors: tuple[type[RpcError], ...] = (),
        room: Callable[[Any, int], None] | None = None,
    ) -> Callable[[Handler], Handler]:
        """Registers the decorated function."""

        def register(function: Handler) -> Handler:
            if name in self.methods:
                raise ValueError(f"{name} is declared twice")
            is_async = inspect.iscoroutinefunction(function)
            self.methods[name] = Method(
                name, params, function, is_async, many, result, role, cost, errors, room
            )
            return function

        return register


def join(*registries: Registry) -> Mapping[str, Method]:
    """One table of several."""
    joined: dict[str, Method] = {}
    for registry in registries:
        for name in registry.methods.keys() & joined.keys():
            raise ValueError(f"{name} is declared twice")
        joined.update(registry.methods)
    return joined
