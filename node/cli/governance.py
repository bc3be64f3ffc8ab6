"""What a node tells at one block of validators, open proposals and offences, for people and for programs."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from apps.client import Client, RpcError, call_object, decode_output
from ctt_state.modules.authority import AUTHORITY
from ctt_state.modules.authority.views import ITEMS_PER_VIEW_MAX
from ctt_state.records import Change, Outcome
from ctt_state.succession import is_fresh, votes_of
from ctt_state.units import Address, Hash, Height, hex_of
from ctt_state.validators import Member, ValidatorSet

Names = Mapping[Address, str]


class Proposal(NamedTuple):
    """A proposal as the module shows it. Heights are 0 for what has not happened."""

    number: int
    change: Change
    validator: Address
    consensus_key: bytes
    proposer: Address
    proposed_height: Height
    expiry_height: Height
    voters: tuple[Address, ...]
    carried_height: Height
    ready_height: Height
    outcome: Outcome
    closed_height: Height


class Epoch(NamedTuple):
    """An epoch as the module shows it."""

    number: int
    fixing_height: Height
    last_height: Height
    validators_hash: Hash
    next_validators_hash: Hash
    changes_max: int


class Offence(NamedTuple):
    """A key's two contradicting votes as the module shows them, told by the block of this height."""

    number: int
    validator: Address
    consensus_key: bytes
    epoch: int
    view: int
    height: Height


@dataclass(frozen=True, slots=True)
class Standing:
    """The validators, what is proposed and who voted twice, after the block of this height."""

    chain_id: int
    genesis_hash: Hash
    height: Height
    epoch: Epoch
    present: ValidatorSet
    following: ValidatorSet | None  # the next epoch's, once it is fixed
    proposals: tuple[Proposal, ...]  # the open ones
    offences: tuple[Offence, ...]  # all, the oldest first

    @property
    def latest(self) -> ValidatorSet:
        return self.following or self.present

    @property
    def votes_needed(self) -> int:
        """Strictly more than half of the present set."""
        return len(self.present.members) // 2 + 1

    @property
    def next_fixing(self) -> Height:
        """The height of the next block that makes a set of what is proposed."""
        blocks = self.epoch.last_height // (self.epoch.number + 1)
        is_over = self.height >= self.epoch.fixing_height
        return Height(self.epoch.fixing_height + (blocks if is_over else 0))

    def first_height_after(self, fixing: Height) -> Height:
        """Of the set that the block of this fixing height makes."""
        return Height(fixing + self.epoch.last_height - self.epoch.fixing_height + 1)

    def votes_of(self, proposal: Proposal) -> int:
        return votes_of(proposal.voters, self.present)

    def is_ready(self, proposal: Proposal) -> bool:
        """Whether what the key has shown is still fresh at the next fixing height, or there is no key to show."""
        return proposal.change is Change.REMOVE or is_fresh(proposal.ready_height, self.next_fixing)


async def read_standing(client: Client) -> Standing:
    """Raises: RpcError, aiohttp.ClientError, TimeoutError."""
    status = await client.call("ctt_chainStatus")
    height = Height(status["height"])
    views = await _read(
        client, height, [("validators()",), ("nextValidators()",), ("epoch()",), ("openProposals()",)]
    )
    (present,), (following,), epoch, (numbers,) = views
    found = await _read(client, height, [("proposal(uint256)", number) for number in numbers])
    return Standing(
        chain_id=status["chainId"],
        genesis_hash=Hash(bytes.fromhex(status["genesisHash"].removeprefix("0x"))),
        height=height,
        epoch=Epoch(*epoch),
        present=_set_of(present),
        following=_set_of(following) if following else None,
        proposals=tuple([decode_proposal(*each) for each in found]),
        offences=tuple([offence async for offence in _offences(client, height)]),
    )


async def _offences(client: Client, height: Height) -> AsyncIterator[Offence]:
    """A page at a time. Raises: RpcError."""
    offset = 0
    while True:
        ((page,),) = await _read(client, height, [("offences(uint256,uint256)", offset, ITEMS_PER_VIEW_MAX)])
        for shown in page:
            yield Offence(*shown)
        offset += len(page)
        if len(page) < ITEMS_PER_VIEW_MAX:
            return


async def _read(client: Client, height: Height, calls: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Each view's results at one block. Raises: RpcError."""
    functions = [AUTHORITY.named(signature) for signature, *_ in calls]
    requests = [
        ("eth_call", [call_object(AUTHORITY, function, *arguments), hex(height)])
        for function, (_, *arguments) in zip(functions, calls, strict=True)
    ]
    outputs = results(await client.batch(requests)) if requests else []
    return [decode_output(function, output) for function, output in zip(functions, outputs, strict=True)]


def results(answers: list[Any]) -> list[Any]:
    """Those of a batch. Raises: the first RpcError among them."""
    for answer in answers:
        if isinstance(answer, RpcError):
            raise answer
    return answers


def decode_proposal(shown: tuple[Any, ...]) -> Proposal:
    proposal = Proposal(*shown)
    return proposal._replace(change=Change(proposal.change), outcome=Outcome(proposal.outcome))


def _set_of(members: tuple[tuple[Address, bytes], ...]) -> ValidatorSet:
    return ValidatorSet(tuple([Member(*member) for member in members]))


# --- for people -----------------------------------------------------------------------------------------------------


def describe_standing(standing: Standing, names: Names) -> Iterator[str]:
    """Lines of text."""
    epoch, fixing = standing.epoch, standing.next_fixing
    yield (
        f"chain {standing.chain_id} at block {standing.height}, "
        f"in epoch {epoch.number} up to block {epoch.last_height}"
    )
    yield (
        f"the next set is fixed by block {fixing} and takes effect with block {standing.first_height_after(fixing)}; "
        f"it changes {epoch.changes_max} at most"
    )
    yield ""
    yield from _describe_set(f"{len(standing.present.members)} validators", standing.present, names)
    if standing.following is not None:
        yield ""
        first = epoch.last_height + 1
        if standing.following == standing.present:
            yield f"from block {first} on: the same"
        else:
            count = len(standing.following.members)
            yield from _describe_set(f"from block {first} on: {count} validators", standing.following, names)
    yield ""
    if not standing.proposals:
        yield "no open proposals"
    for proposal in standing.proposals:
        yield from describe_proposal(proposal, standing, names)
    if standing.offences:
        yield ""
    for offence in standing.offences:
        yield from _describe_offence(offence, standing, names)


def _describe_set(title: str, members: ValidatorSet, names: Names) -> Iterator[str]:
    yield f"{title}:"
    for place, (address, key) in enumerate(members.members):
        yield f"  {place:>2}  {names.get(address, '-'):<16}  {hex_of(address)}  {hex_of(key)}"


def describe_proposal(proposal: Proposal, standing: Standing, names: Names) -> Iterator[str]:
    """What an open proposal would change, who is for it, and what it waits for."""
    voters = ", ".join(names.get(each, hex_of(each)) for each in proposal.voters)
    yield f"proposal {proposal.number}: {describe_change(proposal)}"
    yield (
        f"  proposed in block {proposal.proposed_height} by {_name(proposal.proposer, names)}; "
        f"open until block {proposal.expiry_height}"
    )
    yield (
        f"  votes: {standing.votes_of(proposal)} of {len(standing.present.members)}, "
        f"{standing.votes_needed} carry it; for it: {voters}"
    )
    if proposal.change is not Change.REMOVE:
        shown = proposal.ready_height
        yield f"  key: shown at block {shown}" if shown else "  key: not shown yet"
    yield f"  {_describe_wait(proposal, standing)}"


def _describe_offence(offence: Offence, standing: Standing, names: Names) -> Iterator[str]:
    """Who voted twice where, and whether the key is still in the set: it is where nobody can be spared (A-8)."""
    validator, key = hex_of(offence.validator), hex_of(offence.consensus_key)
    where = f"in view {offence.view} of epoch {offence.epoch}"
    yield f"offence {offence.number}: {_name(offence.validator, names)} voted twice {where}"
    yield f"  key {key} is barred for ever, by block {offence.height}"
    if offence.consensus_key in standing.latest.keys:
        yield f"  it is still in the set: give the validator another one (ctt authority propose --rotate {validator})"


def describe_change(proposal: Proposal) -> str:
    validator, key = hex_of(proposal.validator), hex_of(proposal.consensus_key)
    match proposal.change:
        case Change.ADD:
            return f"add {validator} with key {key}"
        case Change.ROTATE:
            return f"give {validator} the key {key}"
        case Change.REMOVE:
            return f"remove {validator}"


def _describe_wait(proposal: Proposal, standing: Standing) -> str:
    missing = standing.votes_needed - standing.votes_of(proposal)
    waits = []
    if missing > 0:
        waits.append(
            f"{missing} more vote{'s' if missing > 1 else ''} (ctt authority vote {proposal.number})"
        )
    if not standing.is_ready(proposal):
        waits.append(f"its key to be shown (ctt authority ready {proposal.number})")
    if waits:
        return f"waits for {' and for '.join(waits)}"
    fixing = standing.next_fixing
    return (
        f"can be applied by block {fixing}, to take effect with block {standing.first_height_after(fixing)}"
    )


def _name(address: Address, names: Names) -> str:
    return f"{names[address]} ({hex_of(address)})" if address in names else hex_of(address)


# --- for programs ---------------------------------------------------------------------------------------------------


def summarise_standing(standing: Standing, names: Names) -> dict[str, object]:
    """The same as one JSON object; what has not happened is null."""
    epoch, fixing, following = standing.epoch, standing.next_fixing, standing.following
    return {
        "chainId": standing.chain_id,
        "genesisHash": hex_of(standing.genesis_hash),
        "height": standing.height,
        "epoch": {
            "number": epoch.number,
            "lastHeight": epoch.last_height,
            "nextFixingHeight": fixing,
            "takesEffectHeight": standing.first_height_after(fixing),
            "maximumChanges": epoch.changes_max,
        },
        "validators": _summarise_set(standing.present, names),
        "nextValidators": None if following is None else _summarise_set(following, names),
        "votesNeeded": standing.votes_needed,
        "proposals": [summarise_proposal(each, standing) for each in standing.proposals],
        "offences": [_summarise_offence(each, standing) for each in standing.offences],
    }


def _summarise_set(members: ValidatorSet, names: Names) -> list[dict[str, object]]:
    return [
        {"place": place, "name": names.get(address), "address": hex_of(address), "consensusKey": hex_of(key)}
        for place, (address, key) in enumerate(members.members)
    ]


def summarise_proposal(proposal: Proposal, standing: Standing) -> dict[str, object]:
    return {
        "number": proposal.number,
        "change": proposal.change.name.lower(),
        "validator": hex_of(proposal.validator),
        "consensusKey": hex_of(proposal.consensus_key) if proposal.consensus_key else None,
        "proposer": hex_of(proposal.proposer),
        "proposedHeight": proposal.proposed_height,
        "expiryHeight": proposal.expiry_height,
        "voters": [hex_of(voter) for voter in proposal.voters],
        "votes": standing.votes_of(proposal),
        "carriedHeight": proposal.carried_height or None,
        "readyHeight": proposal.ready_height or None,
        "isReady": standing.is_ready(proposal),
    }


def _summarise_offence(offence: Offence, standing: Standing) -> dict[str, object]:
    return {
        "number": offence.number,
        "validator": hex_of(offence.validator),
        "consensusKey": hex_of(offence.consensus_key),
        "epoch": offence.epoch,
        "view": offence.view,
        "height": offence.height,
        "isInSet": offence.consensus_key in standing.latest.keys,
    }
