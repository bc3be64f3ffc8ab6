"""Who may ask what, and how much of it: roles, API tokens and quotas.

A role has everything of those below it. Who shows an API token has the token's role; who shows a certificate of the
platforms' authority is a platform; everyone else is the public. Where there are no tokens, programs on this machine are
operators. Each client has a quota of cost units: a bucket that fills by so many a second, up to ten seconds' worth.

Pure: files, clocks and sockets are others'. Dates are in UTC, as tokens end; seconds are of a clock that does not jump.
"""

import hmac
import ipaddress
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from rpc.errors import RateLimited

CLIENTS_MAX: Final = 10_000  # without a token, of which something is remembered
TOKENS_MAX: Final = 5_000
PREFIX_DIGITS: Final = 16  # of a hash, by which it is found: among so many tokens no two have the same
BURST_S: Final = 10.0
TOKEN_PREFIX: Final = "ctt_"  # so that a token that has leaked is recognised
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")

_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,256})", re.IGNORECASE | re.ASCII)
_LINE: Final = re.compile(r"(?P<hash>[0-9a-f]{64}) (?P<role>[a-z]+) (?P<name>\S+) (?P<expires>\S+)")


class Role(IntEnum):
    """What a client is to the node."""

    PUBLIC = 0
    METER = 1  # and a concentrator of many meters
    PLATFORM = 2  # asks for many users
    OPERATOR = 3


ROLES: Final = {role.name.lower(): role for role in Role}
RESERVED: Final = (Role.METER, Role.OPERATOR)  # places are kept for these while others flood the node

# In cost units a second; None is as much as the node can do.
QUOTAS: Final[Mapping[Role, int | None]] = {
    Role.PUBLIC: 50,
    Role.METER: 200,
    Role.PLATFORM: 5_000,
    Role.OPERATOR: None,
}


class NotAdmitted(Exception):
    """Whoever asks may not: 401 if a token, or another one, would help, else 403."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


# --- tokens ---------------------------------------------------------------------------------------------------------


class Token(NamedTuple):
    """What the node keeps of an API token: never the token itself. It is good until the day `expires` begins."""

    hash: str
    role: Role
    name: str
    expires: date | None

    def is_expired(self, today: date) -> bool:
        return self.expires is not None and today >= self.expires


def hash_token(secret: str) -> str:
    """A token is 32 random bytes, so one round of SHA-256 is enough."""
    return sha256(secret.encode()).hexdigest()


def read_tokens(text: str) -> list[Token]:
    """The tokens of a list: a line each, SHA-256, role, name and the day it expires; `#` begins a comment.

    Raises: ValueError that names the line.
    """
    tokens: list[Token] = []
    names: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        if content := line.partition("#")[0].strip():
            token = _read_token(content)
            if token is None:
                raise ValueError(
                    f"line {number} is no token: expected SHA-256, role, name and date or 'never'"
                )
            if token.name in names:
                raise ValueError(f"line {number}: the name {token.name} appears twice")
            names.add(token.name)
            tokens.append(token)
    if len(tokens) > TOKENS_MAX:
        raise ValueError(f"has {len(tokens):,} tokens; limit {TOKENS_MAX:,}")
    return tokens


def _read_token(content: str) -> Token | None:
    match = _LINE.fullmatch(content)
    if match is None or match["role"] not in ROLES or not NAME.fullmatch(match["name"]):
        return None
    try:
        expires = None if match["expires"] == "never" else date.fromisoformat(match["expires"])
    except ValueError:
        return None
    return Token(match["hash"], ROLES[match["role"]], match["name"], expires)


def write_token(token: Token) -> str:
    """Its line of the list."""
    return f"{token.hash} {token.role.name.lower()} {token.name} {token.expires or 'never'}\n"


# --- quotas ---------------------------------------------------------------------------------------------------------


class Bucket:
    """Holds up to `most` units and fills by `per_s` a second. It begins full."""

    __slots__ = ("_at", "_level", "_most", "per_s")

    def __init__(self, per_s: int, most: float, now: float) -> None:
        self.per_s = per_s
        self._most = most
        self._level = most
        self._at = now

    def take(self, units: float, now: float) -> float:
        """Zero when they were taken; else the seconds until they could be. More than it holds take all of it."""
        units = min(units, self._most)
        self._level = min(self._most, self._level + (now - self._at) * self.per_s)
        self._at = now
        if self._level < units:
            return (units - self._level) / self.per_s
        self._level -= units
        return 0.0


class Client:
    """Who asks, under the name by which it is counted. Without `bucket` it has no quota."""

    __slots__ = ("_bucket", "_clock", "calls", "is_reserved", "name", "role", "token")

    def __init__(
        self,
        name: str,
        role: Role,
        bucket: Bucket | None = None,
        clock: Callable[[], float] = float,
        token: Token | None = None,
    ) -> None:
        self.name = name
        self.role = role
        self.is_reserved = role in RESERVED
        self.token = token
        self.calls = 0  # at work
        self._bucket = bucket
        self._clock = clock

    def charge(self, units: int) -> None:
        """Raises: RateLimited."""
        if self._bucket is not None:
            wait_s = self._bucket.take(units, self._clock())
            if wait_s:
                raise RateLimited(self._bucket.per_s, wait_s)


LOCAL: Final = Client("local", Role.OPERATOR)


# --- who it is ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What clients need and get."""

    least: Role = Role.PUBLIC  # below it nobody is served
    quotas: Mapping[Role, int | None] = field(default_factory=lambda: QUOTAS)


class Access:
    """Tells who a client is. It remembers each client's bucket, of those without a token only so many.

    `tokens` None: there is no list, and programs on this machine are trusted. An empty list trusts nobody.
    """

    def __init__(
        self,
        rules: AccessRules,
        clock: Callable[[], float],
        today: Callable[[], date],
        tokens: Sequence[Token] | None = None,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._today = today
        self._by_prefix: dict[str, Client] = {}
        self._others: OrderedDict[str, Client] = OrderedDict()
        self._has_list = False
        self.set_tokens(tokens)

    def set_tokens(self, tokens: Sequence[Token] | None) -> None:
        """Takes a new list; who stays in it keeps what its bucket holds."""
        if (tokens is not None) != self._has_list:
            self._others.clear()
        self._has_list = tokens is not None
        known = {client.token: client for client in self._by_prefix.values()}
        self._by_prefix = {
            token.hash[:PREFIX_DIGITS]: known.get(token)
            or self._make(f"token {token.name}", token.role, token)
            for token in tokens or ()
        }

    def client(
        self,
        address: str,
        certificate: str | None,
        authorization: Sequence[str],
        least: Role = Role.PUBLIC,
    ) -> Client:
        """Who asks from this address, with the name in its certificate and with these Authorization headers. `least`
        is what the thing asked for needs, whatever the rules let in otherwise.

        Raises: NotAdmitted.
        """
        if authorization and self._has_list:
            client = self._of_token(authorization)
        elif certificate is not None:
            client = self._remembered(f"certificate {certificate}", Role.PLATFORM)
        elif self.is_trusted(address):
            client = LOCAL
        else:
            client = self._remembered(network_of(address), Role.PUBLIC)
        if client.role < max(least, self._rules.least):
            self._refuse(client, max(least, self._rules.least))
        return client

    def is_trusted(self, address: str) -> bool:
        """Whether whoever connects from there is an operator without more ado."""
        return not self._has_list and network_of(address) == _LOOPBACK

    def ended(self, client: Client) -> str | None:
        """Why a client that was let in is so no more."""
        token = client.token
        if client is LOCAL and self._has_list:
            return "the node asks for tokens now"
        if token is None:
            return None
        if self._by_prefix.get(token.hash[:PREFIX_DIGITS]) is not client:
            return "the token is revoked"
        return self._expiry(token)

    def _of_token(self, authorization: Sequence[str]) -> Client:
        if len(authorization) > 1:
            raise NotAdmitted(401, "two Authorization headers; send one")
        match = _BEARER.fullmatch(authorization[0])
        if match is None:
            raise NotAdmitted(401, "malformed Authorization header; send 'Bearer TOKEN'")
        wanted = hash_token(match[1])
        # It is found by the beginning of its hash, which tells nothing of the token. To compare the rest takes as long
        # whatever it is.
        client = self._by_prefix.get(wanted[:PREFIX_DIGITS])
        if client is None or client.token is None or not hmac.compare_digest(client.token.hash, wanted):
            raise NotAdmitted(401, "unknown token; it may be revoked")
        if expiry := self._expiry(client.token):
            raise NotAdmitted(401, expiry)
        return client

    def _expiry(self, token: Token) -> str | None:
        return f"token expired at {token.expires}" if token.is_expired(self._today()) else None

    def _refuse(self, client: Client, least: Role) -> None:
        needed = least.name.lower()
        if client.role is Role.PUBLIC and client.token is None:
            raise NotAdmitted(401, f"a token of role {needed} is needed: 'Authorization: Bearer TOKEN'")
        raise NotAdmitted(403, f"role {client.role.name.lower()} is not served here; {needed} is needed")

    def _remembered(self, name: str, role: Role) -> Client:
        """The longest idle is forgotten first: its bucket is the fullest."""
        client = self._others.get(name)
        if client is None:
            if len(self._others) >= CLIENTS_MAX:
                self._others.popitem(last=False)
            client = self._others[name] = self._make(name, role)
        else:
            self._others.move_to_end(name)
        return client

    def _make(self, name: str, role: Role, token: Token | None = None) -> Client:
        per_s = self._rules.quotas[role]
        bucket = None if per_s is None else Bucket(per_s, per_s * BURST_S, self._clock())
        return Client(name, role, bucket, self._clock, token)


_LOOPBACK: Final = "the loopback"


@lru_cache(CLIENTS_MAX)
def network_of(address: str) -> str:
    """What counts as one client: an IPv4 address, or the 2**64 addresses that one IPv6 line gets."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return _LOOPBACK
    return str(ipaddress.ip_network((ip, 64), strict=False)) if ip.version == 6 else str(ip)
