"""The CTT module's address, events and errors; its functions stand beside their rules in the files next to this."""

from typing import Final

from ctt_state.abi import Module
from ctt_state.modules.call import Call
from ctt_state.records import CttConfig, CttSupply, Prosumer, Token
from ctt_state.units import UINT64_MAX, Address, TokenId

CTT: Final = Module("CTT", Address(bytes.fromhex("000000000000000000000000000000000000c700")))

# Where native modules answer: CTT, Market, Treasury, Authority. No other address holds code.
MODULE_ADDRESSES: Final = frozenset(Address(bytes(18) + bytes((0xC7, number))) for number in range(4))

# ERC-721, ERC-4906
Transfer = CTT.event("Transfer(address indexed from,address indexed to,uint256 indexed tokenId)")
ApprovalSet = CTT.event("Approval(address indexed owner,address indexed approved,uint256 indexed tokenId)")
ApprovalForAll = CTT.event("ApprovalForAll(address indexed owner,address indexed operator,bool approved)")
MetadataUpdate = CTT.event("MetadataUpdate(uint256 tokenId)")
BatchMetadataUpdate = CTT.event("BatchMetadataUpdate(uint256 fromTokenId,uint256 toTokenId)")

# Administration
CTTCreated = CTT.event(
    "CTTCreated(address indexed admin,string name,string symbol,uint256 maxSupply,uint256 capability)"
)
AdminUpdated = CTT.event("AdminUpdated(address indexed previousAdmin,address indexed newAdmin)")
MaxTokenSupplySet = CTT.event("MaxTokenSupplySet(uint256 maxSupply)")
TokenCapabilitySet = CTT.event("TokenCapabilitySet(uint256 capability)")
EmptyTokenPriceSet = CTT.event("EmptyTokenPriceSet(uint256 price)")
OperatorSet = CTT.event("OperatorSet(address indexed operator,bool allowed)")

# Meters and prosumers
MeterCertified = CTT.event(
    "MeterCertified(address indexed meter,address indexed operator,uint8 source,uint64 maxPowerW,bool concentrator)"
)
MeterRevoked = CTT.event("MeterRevoked(address indexed meter,address indexed operator)")
ProsumerRegistered = CTT.event("ProsumerRegistered(address indexed prosumer,address indexed meter)")
ProsumerConfirmed = CTT.event("ProsumerConfirmed(address indexed prosumer,address indexed meter)")

# Sale
TokenOnSale = CTT.event(
    "TokenOnSale(uint256 indexed tokenId,address indexed owner,uint256 tokenPrice,uint256 energyPrice)"
)
SaleCancelled = CTT.event("SaleCancelled(uint256 indexed tokenId,address indexed owner)")
TokenSold = CTT.event(
    "TokenSold(uint256 indexed tokenId,address indexed seller,address indexed buyer,uint256 price,uint256 energy)"
)

# Energy
EnergyRefilled = CTT.event(
    "EnergyRefilled(address indexed prosumer,address indexed meter,uint256 offered,uint256 stored)"
)
EnergyConsumed = CTT.event(
    "EnergyConsumed(address indexed prosumer,address indexed meter,uint256 requested,uint256 covered)"
)
EnergyTransferred = CTT.event(
    "EnergyTransferred(address indexed from,address indexed to,uint256 indexed tokenId,uint256 energy)"
)
# Right after the EnergyConsumed of which it is a part, for each source but 0.
OriginRetired = CTT.event("OriginRetired(address indexed prosumer,uint8 indexed source,uint256 energy)")
ReadingRejected = CTT.event("ReadingRejected(uint256 indexed index,bytes reason)")

# Refusals
NotCreated = CTT.error("NotCreated()")
AlreadyCreated = CTT.error("AlreadyCreated()")
NotAdmin = CTT.error("NotAdmin(address caller)")
NotNextAdmin = CTT.error("NotNextAdmin(address caller)")
InvalidName = CTT.error("InvalidName(string name,uint256 maximumBytes)")
InvalidOperator = CTT.error("InvalidOperator(address operator)")
NotOperator = CTT.error("NotOperator(address caller)")
InvalidAmount = CTT.error("InvalidAmount(uint256 amount,uint256 minimum,uint256 maximum)")
MaxSupplyBelowMinted = CTT.error("MaxSupplyBelowMinted(uint256 maxSupply,uint256 minted)")
SupplyExhausted = CTT.error("SupplyExhausted(uint256 maxSupply,uint256 minted,uint256 requested)")
InsufficientPayment = CTT.error("InsufficientPayment(uint256 required,uint256 sent)")
InvalidSource = CTT.error("InvalidSource(uint8 source,uint8 maximum)")
MeterNotCertified = CTT.error("MeterNotCertified(address meter)")
MeterTaken = CTT.error("MeterTaken(address meter,address prosumer)")
NotRegistered = CTT.error("NotRegistered(address prosumer)")
NotProsumersMeter = CTT.error("NotProsumersMeter(address expected,address caller)")
NotConfirmedMeter = CTT.error("NotConfirmedMeter(address prosumer,address caller)")
AlreadyConfirmed = CTT.error("AlreadyConfirmed(address prosumer)")
InvalidMeter = CTT.error("InvalidMeter(address meter)")
ConcentratorFixed = CTT.error("ConcentratorFixed(address meter,bool concentrator)")
NotConcentrator = CTT.error("NotConcentrator(address caller)")
ImplausibleReading = CTT.error("ImplausibleReading(uint256 amount,uint256 limit)")
ReadingNotNewer = CTT.error("ReadingNotNewer(uint64 lastTime,uint64 readingTime)")
ReadingInFuture = CTT.error("ReadingInFuture(uint64 blockTime,uint64 readingTime)")
RegisterRanBackwards = CTT.error("RegisterRanBackwards(uint256 last,uint256 reading)")
NotOnSale = CTT.error("NotOnSale(uint256 tokenId)")
AlreadyOwner = CTT.error("AlreadyOwner(uint256 tokenId,address owner)")
EnergyBelowMinimum = CTT.error("EnergyBelowMinimum(uint256 minimum,uint256 energy)")

# Permit
PermitExpired = CTT.error("PermitExpired(uint256 deadline,uint256 blockTime)")
InvalidPermitSignature = CTT.error("InvalidPermitSignature()")
InvalidPermitSigner = CTT.error("InvalidPermitSigner(address signer,address owner)")

# ERC-6093
ERC721InvalidOwner = CTT.error("ERC721InvalidOwner(address owner)")
ERC721NonexistentToken = CTT.error("ERC721NonexistentToken(uint256 tokenId)")
ERC721IncorrectOwner = CTT.error("ERC721IncorrectOwner(address sender,uint256 tokenId,address owner)")
ERC721InvalidSender = CTT.error("ERC721InvalidSender(address sender)")
ERC721InvalidReceiver = CTT.error("ERC721InvalidReceiver(address receiver)")
ERC721InsufficientApproval = CTT.error("ERC721InsufficientApproval(address operator,uint256 tokenId)")
ERC721InvalidApprover = CTT.error("ERC721InvalidApprover(address approver)")
ERC721InvalidOperator = CTT.error("ERC721InvalidOperator(address operator)")
ERC721OutOfBoundsIndex = CTT.error("ERC721OutOfBoundsIndex(address owner,uint256 index)")

NO_SUPPLY: Final = CttSupply()
NO_PROSUMER: Final = Prosumer()


def config_of(call: Call) -> CttConfig:
    """The CTT's configuration. Raises: NotCreated."""
    config = call.get(CttConfig, CttConfig.key())
    if config is None:
        raise NotCreated()
    return config


def supply_of(call: Call) -> CttSupply:
    return call.get(CttSupply, CttSupply.key()) or NO_SUPPLY


def prosumer_of(call: Call, owner: Address) -> Prosumer:
    """The owner's meter and shelf; an empty one for an address never seen."""
    return call.get(Prosumer, Prosumer.key(owner)) or NO_PROSUMER


def token_of(call: Call, token_id: int) -> Token:
    """The token. Raises: ERC721NonexistentToken."""
    token = call.get(Token, Token.key(TokenId(token_id))) if token_id <= UINT64_MAX else None
    if token is None:
        raise ERC721NonexistentToken(token_id)
    return token
