// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC721} from "@openzeppelin/contracts/token/ERC721/ERC721.sol";
import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {IERC721} from "@openzeppelin/contracts/token/ERC721/IERC721.sol";
import {IERC721Enumerable} from "@openzeppelin/contracts/token/ERC721/extensions/IERC721Enumerable.sol";
import {IERC4906} from "@openzeppelin/contracts/interfaces/IERC4906.sol";
import {Address} from "@openzeppelin/contracts/utils/Address.sol";

/// The Crypto-Trading Token as a contract: what the benchmark compares the native module with.
///
/// Functions, events, refusals and their order are the native module's; S-1 to S-9 are the rules of docs/PROTOCOL.md.
/// Left out, in the contract's favour: the origin of energy (S-12), reportBatch, permits, pictures. Energy is in Wh, money
/// in wei, time in ms. There is no constructor: the code can be placed at the native module's address, so that one signed
/// transaction runs here and there.
contract CTT is ERC721, IERC721Enumerable, IERC4906 {
    struct Token {
        uint64 energy;
        uint64 slot; // its place in its owner's shelf
        bool onSale;
        uint128 tokenPrice;
        uint128 energyPrice; // wei per Wh
    }

    /// Four words of storage; what one reading changes stands together.
    struct Prosumer {
        address meter;
        bool confirmed;
        uint64 capability; // by which full was last told from partly charged (S-5)
        uint64 full;
        uint64 partly;
        uint64 empty;
        uint64 onSale;
        uint64 fullEnergy;
        uint64 partlyEnergy;
        uint64 produced;
        uint64 stored;
        uint64 consumed;
        uint64 covered;
    }

    struct Meter {
        address operator;
        uint8 source;
        bool concentrator;
        bool certified;
        uint64 maxPowerW; // 0: no limit
        address prosumer; // whom it has confirmed, if it is no concentrator
    }

    struct Reading {
        uint64 time; // of the registers; 0: no baseline yet
        uint64 importTotal;
        uint64 exportTotal;
        uint64 refilled; // block time of the last refill, or of the confirmation
        uint64 consumed;
    }

    struct Supply {
        uint64 lastTokenId;
        uint64 energy;
        uint64 refilled;
        uint64 covered;
    }

    event CTTCreated(address indexed admin, string name, string symbol, uint256 maxSupply, uint256 capability);
    event AdminUpdated(address indexed previousAdmin, address indexed newAdmin);
    event MaxTokenSupplySet(uint256 maxSupply);
    event TokenCapabilitySet(uint256 capability);
    event EmptyTokenPriceSet(uint256 price);
    event OperatorSet(address indexed operator, bool allowed);
    event MeterCertified(
        address indexed meter, address indexed operator, uint8 source, uint64 maxPowerW, bool concentrator
    );
    event MeterRevoked(address indexed meter, address indexed operator);
    event ProsumerRegistered(address indexed prosumer, address indexed meter);
    event ProsumerConfirmed(address indexed prosumer, address indexed meter);
    event TokenOnSale(uint256 indexed tokenId, address indexed owner, uint256 tokenPrice, uint256 energyPrice);
    event SaleCancelled(uint256 indexed tokenId, address indexed owner);
    event TokenSold(
        uint256 indexed tokenId, address indexed seller, address indexed buyer, uint256 price, uint256 energy
    );
    event EnergyRefilled(address indexed prosumer, address indexed meter, uint256 offered, uint256 stored);
    event EnergyConsumed(address indexed prosumer, address indexed meter, uint256 requested, uint256 covered);
    event EnergyTransferred(address indexed from, address indexed to, uint256 indexed tokenId, uint256 energy);

    error NotCreated();
    error AlreadyCreated();
    error NotAdmin(address caller);
    error NotNextAdmin(address caller);
    error InvalidName(string name, uint256 maximumBytes);
    error InvalidOperator(address operator);
    error NotOperator(address caller);
    error InvalidAmount(uint256 amount, uint256 minimum, uint256 maximum);
    error MaxSupplyBelowMinted(uint256 maxSupply, uint256 minted);
    error SupplyExhausted(uint256 maxSupply, uint256 minted, uint256 requested);
    error InsufficientPayment(uint256 required, uint256 sent);
    error InvalidSource(uint8 source, uint8 maximum);
    error InvalidMeter(address meter);
    error ConcentratorFixed(address meter, bool concentrator);
    error MeterNotCertified(address meter);
    error MeterTaken(address meter, address prosumer);
    error NotRegistered(address prosumer);
    error NotProsumersMeter(address expected, address caller);
    error NotConfirmedMeter(address prosumer, address caller);
    error AlreadyConfirmed(address prosumer);
    error ImplausibleReading(uint256 amount, uint256 limit);
    error ReadingNotNewer(uint64 lastTime, uint64 readingTime);
    error ReadingInFuture(uint64 blockTime, uint64 readingTime);
    error RegisterRanBackwards(uint256 last, uint256 reading);
    error NotOnSale(uint256 tokenId);
    error AlreadyOwner(uint256 tokenId, address owner);
    error EnergyBelowMinimum(uint256 minimum, uint256 energy);
    error ERC721OutOfBoundsIndex(address owner, uint256 index);

    uint256 private constant NAME_BYTES_MAX = 64;
    uint8 private constant SOURCE_MAX = 5;
    uint256 private constant TOKENS_PER_READING_MAX = 256;
    uint64 private constant CLOCK_AHEAD_MAX = 60_000;
    uint256 private constant MS_PER_HOUR = 3_600_000;
    uint256 private constant FULL = 0; // the regions of a shelf, in the order of its slots
    uint256 private constant PARTLY = 1;
    uint256 private constant EMPTY = 2;
    uint256 private constant ON_SALE = 3;

    string private _name;
    string private _symbol;
    address private _admin;
    uint64 private _maxSupply; // one word with the capabilities, which every reading needs
    uint64 private _capability;
    uint64 private _highestCapability;
    address public nextAdmin;
    uint128 private _emptyTokenPrice;
    Supply private _supply;
    mapping(address => bool) public isOperator;
    mapping(address => Meter) private _meters;
    mapping(address => Prosumer) private _prosumers;
    mapping(uint256 => Token) private _tokens;
    mapping(address => mapping(uint256 => uint256)) private _shelves; // owner, slot: the token there (S-4)
    mapping(address => mapping(address => Reading)) private _readings; // meter, prosumer

    constructor() ERC721("", "") {}

    // Administration

    modifier onlyAdmin() {
        if (_capability == 0) revert NotCreated();
        if (msg.sender != _admin) revert NotAdmin(msg.sender);
        _;
    }

    /// S-2. Once; whoever calls becomes the admin.
    function createCTT(string calldata name_, string calldata symbol_, uint256 maxSupply, uint256 capability) external {
        if (_capability != 0) revert AlreadyCreated();
        _checkName(name_);
        _checkName(symbol_);
        _checkAmount(capability, 1, type(uint64).max);
        _checkAmount(maxSupply, 0, type(uint64).max / capability);
        (_name, _symbol, _admin, _maxSupply) = (name_, symbol_, msg.sender, uint64(maxSupply));
        (_capability, _highestCapability) = (uint64(capability), uint64(capability));
        emit CTTCreated(msg.sender, name_, symbol_, maxSupply, capability);
    }

    function updateAdmin(address newAdmin) external onlyAdmin {
        nextAdmin = newAdmin;
    }

    function acceptAdmin() external {
        if (_capability == 0) revert NotCreated();
        if (msg.sender != nextAdmin) revert NotNextAdmin(msg.sender);
        emit AdminUpdated(_admin, msg.sender);
        (_admin, nextAdmin) = (msg.sender, address(0));
    }

    /// S-2.
    function setMaxTokenSupply(uint256 maxSupply) external onlyAdmin {
        uint256 minted = _supply.lastTokenId;
        if (maxSupply < minted) revert MaxSupplyBelowMinted(maxSupply, minted);
        _checkAmount(maxSupply, minted, type(uint64).max / _highestCapability);
        _maxSupply = uint64(maxSupply);
        emit MaxTokenSupplySet(maxSupply);
    }

    /// S-2, S-5.
    function setTokenCapability(uint256 capability) external onlyAdmin {
        _checkAmount(capability, 1, type(uint64).max / (_maxSupply == 0 ? 1 : _maxSupply));
        _capability = uint64(capability);
        if (_capability > _highestCapability) _highestCapability = _capability;
        emit TokenCapabilitySet(capability);
        if (_supply.lastTokenId != 0) emit BatchMetadataUpdate(1, _supply.lastTokenId);
    }

    function setEmptyTokenPrice(uint256 price) external onlyAdmin {
        _checkAmount(price, 0, type(uint128).max);
        _emptyTokenPrice = uint128(price);
        emit EmptyTokenPriceSet(price);
    }

    function setOperator(address operator, bool allowed) external onlyAdmin {
        if (operator == address(0)) revert InvalidOperator(operator);
        isOperator[operator] = allowed;
        emit OperatorSet(operator, allowed);
    }

    // Meters and prosumers (S-8)

    modifier onlyOperator() {
        if (_capability == 0) revert NotCreated();
        if (!isOperator[msg.sender]) revert NotOperator(msg.sender);
        _;
    }

    function certifyMeter(address meter, uint8 source, uint64 maxPowerW, bool concentrator) external onlyOperator {
        if (meter == address(0)) revert InvalidMeter(meter);
        if (source > SOURCE_MAX) revert InvalidSource(source, SOURCE_MAX);
        Meter storage known = _meters[meter];
        if (known.operator != address(0) && known.concentrator != concentrator) {
            revert ConcentratorFixed(meter, known.concentrator);
        }
        _meters[meter] = Meter(msg.sender, source, concentrator, true, maxPowerW, known.prosumer);
        emit MeterCertified(meter, msg.sender, source, maxPowerW, concentrator);
    }

    function revokeMeter(address meter) external onlyOperator {
        _certified(meter).certified = false;
        emit MeterRevoked(meter, msg.sender);
    }

    function register(address smartMeter) external {
        if (_capability == 0) revert NotCreated();
        _checkFree(_certified(smartMeter), smartMeter, msg.sender);
        Prosumer storage owner = _prosumers[msg.sender];
        if (owner.confirmed) _meters[owner.meter].prosumer = address(0);
        (owner.meter, owner.confirmed) = (smartMeter, false);
        emit ProsumerRegistered(msg.sender, smartMeter);
    }

    function confirm(address prosumer) external {
        Prosumer storage owner = _prosumers[prosumer];
        if (owner.meter == address(0)) revert NotRegistered(prosumer);
        if (owner.meter != msg.sender) revert NotProsumersMeter(owner.meter, msg.sender);
        Meter storage meter = _certified(msg.sender);
        _checkFree(meter, msg.sender, prosumer);
        if (owner.confirmed) revert AlreadyConfirmed(prosumer);
        owner.confirmed = true;
        if (!meter.concentrator) meter.prosumer = prosumer;
        _readings[msg.sender][prosumer] = Reading(0, 0, 0, _now(), _now());
        emit ProsumerConfirmed(prosumer, msg.sender);
    }

    // Energy

    /// S-3, S-4, S-6. Returns the Wh stored; the rest is fed to the grid.
    function refill(uint256 amount, address prosumer) public returns (uint256 stored) {
        (Prosumer storage owner, Meter storage meter) = _checkMeter(prosumer);
        _checkAmount(amount, 0, type(uint64).max - owner.produced);
        if (meter.maxPowerW != 0) {
            Reading storage last = _readings[msg.sender][prosumer];
            _checkPlausible(amount, meter.maxPowerW, _now() - last.refilled);
            last.refilled = _now();
        }
        return _produce(prosumer, owner, uint64(amount));
    }

    function recharge(uint256 amount, address prosumer) external returns (uint256 stored) {
        return refill(amount, prosumer);
    }

    /// S-3, S-4, S-6. Returns the Wh covered; the rest the operator bills.
    function consume(uint256 maxAmount, address prosumer) external returns (uint256 covered) {
        (Prosumer storage owner, Meter storage meter) = _checkMeter(prosumer);
        _checkAmount(maxAmount, 0, type(uint64).max - owner.consumed);
        if (meter.maxPowerW != 0) {
            Reading storage last = _readings[msg.sender][prosumer];
            _checkPlausible(maxAmount, meter.maxPowerW, _now() - last.consumed);
            last.consumed = _now();
        }
        return _consume(prosumer, owner, uint64(maxAmount));
    }

    /// S-7. The registers of a real meter; what they grew by is stored and covered, export before import.
    function report(address prosumer, uint64 readingTime, uint256 importTotal, uint256 exportTotal)
        external
        returns (uint256 stored, uint256 covered)
    {
        (Prosumer storage owner, Meter storage meter) = _checkMeter(prosumer);
        Reading storage reading = _readings[msg.sender][prosumer];
        Reading memory last = reading;
        _checkAmount(importTotal, 0, type(uint64).max);
        _checkAmount(exportTotal, 0, type(uint64).max);
        if (readingTime <= last.time) revert ReadingNotNewer(last.time, readingTime);
        if (readingTime > _now() + CLOCK_AHEAD_MAX) revert ReadingInFuture(_now(), readingTime);
        (reading.time, reading.importTotal, reading.exportTotal) =
            (readingTime, uint64(importTotal), uint64(exportTotal));
        if (last.time == 0) return (0, 0);

        if (importTotal < last.importTotal) revert RegisterRanBackwards(last.importTotal, importTotal);
        if (exportTotal < last.exportTotal) revert RegisterRanBackwards(last.exportTotal, exportTotal);
        uint64 imported = uint64(importTotal) - last.importTotal;
        uint64 exported = uint64(exportTotal) - last.exportTotal;
        _checkPlausible(imported, meter.maxPowerW, readingTime - last.time);
        _checkPlausible(exported, meter.maxPowerW, readingTime - last.time);
        _checkAmount(imported, 0, type(uint64).max - owner.consumed);
        _checkAmount(exported, 0, type(uint64).max - owner.produced);
        if (exported != 0) stored = _produce(prosumer, owner, exported);
        if (imported != 0) covered = _consume(prosumer, owner, imported);
    }

    // Sale (S-9)

    function buyEmptyToken() external payable returns (uint256 tokenId) {
        return buyEmptyTokens(1);
    }

    /// S-2. Mints to the sender; gives the first id, the others follow it.
    function buyEmptyTokens(uint256 count) public payable returns (uint256 firstTokenId) {
        if (_capability == 0) revert NotCreated();
        uint256 minted = _supply.lastTokenId;
        _checkAmount(count, 1, count == 0 ? _maxSupply : count);
        if (count > _maxSupply - minted) revert SupplyExhausted(_maxSupply, minted, count);
        uint256 price = count * _emptyTokenPrice;
        if (msg.value < price) revert InsufficientPayment(price, msg.value);

        _supply.lastTokenId = uint64(minted + count);
        for (uint256 tokenId = minted + 1; tokenId <= minted + count; tokenId++) {
            _mint(msg.sender, tokenId);
        }
        _pay(_admin, price);
        return minted + 1;
    }

    function setOnSale(uint256 tokenId) external {
        _requireOwned(tokenId);
        setOnSale(tokenId, _tokens[tokenId].tokenPrice, _tokens[tokenId].energyPrice);
    }

    function setOnSale(uint256 tokenId, uint256 tokenPrice, uint256 energyPrice) public {
        address owner = _requireOwned(tokenId);
        _checkAuthorized(owner, msg.sender, tokenId);
        _checkAmount(tokenPrice, 0, type(uint128).max);
        _checkAmount(energyPrice, 0, type(uint128).max);
        Token storage token = _tokens[tokenId];
        (token.tokenPrice, token.energyPrice) = (uint128(tokenPrice), uint128(energyPrice));
        if (!token.onSale) _reshelve(owner, tokenId, true);
        emit TokenOnSale(tokenId, owner, tokenPrice, energyPrice);
    }

    function cancelSale(uint256 tokenId) external {
        address owner = _requireOwned(tokenId);
        _checkAuthorized(owner, msg.sender, tokenId);
        if (!_tokens[tokenId].onSale) revert NotOnSale(tokenId);
        _reshelve(owner, tokenId, false);
        emit SaleCancelled(tokenId, owner);
    }

    function sellingPrice(uint256 tokenId) public view returns (uint256) {
        _requireOwned(tokenId);
        Token storage token = _tokens[tokenId];
        return token.tokenPrice + uint256(token.energy) * token.energyPrice;
    }

    function buyToken(uint256 tokenId) external payable {
        buyToken(tokenId, 0);
    }

    /// Money goes last, when nothing is left to change.
    function buyToken(uint256 tokenId, uint256 minEnergy) public payable {
        address owner = _requireOwned(tokenId);
        Token storage token = _tokens[tokenId];
        if (!token.onSale) revert NotOnSale(tokenId);
        if (owner == msg.sender) revert AlreadyOwner(tokenId, owner);
        if (token.energy < minEnergy) revert EnergyBelowMinimum(minEnergy, token.energy);
        uint256 price = sellingPrice(tokenId);
        if (msg.value < price) revert InsufficientPayment(price, msg.value);

        _transfer(owner, msg.sender, tokenId);
        emit TokenSold(tokenId, owner, msg.sender, price, token.energy);
        _pay(owner, price);
    }

    // ERC-721

    function transferFrom(address from, address to, uint256 tokenId) public override(ERC721, IERC721) {
        bool wasOnSale = _tokens[tokenId].onSale;
        super.transferFrom(from, to, tokenId);
        if (wasOnSale) emit SaleCancelled(tokenId, from);
        uint64 energy = _tokens[tokenId].energy;
        if (energy != 0 && from != to) emit EnergyTransferred(from, to, tokenId, energy);
    }

    function supportsInterface(bytes4 interfaceId) public view override(ERC721, IERC165) returns (bool) {
        return interfaceId == type(IERC721Enumerable).interfaceId || interfaceId == bytes4(0x49064906)
            || super.supportsInterface(interfaceId);
    }

    /// A transfer carries the energy and ends a sale (S-9).
    function _update(address to, uint256 tokenId, address auth) internal override returns (address from) {
        from = super._update(to, tokenId, auth);
        if (from != address(0)) _unshelve(from, tokenId);
        _tokens[tokenId].onSale = false;
        _shelve(to, tokenId);
    }

    // Views

    function name() public view override returns (string memory) {
        return _name;
    }

    function symbol() public view override returns (string memory) {
        return _symbol;
    }

    function admin() external view returns (address) {
        return _admin;
    }

    function maxTokenSupply() external view returns (uint256) {
        return _maxSupply;
    }

    function tokenCapability() external view returns (uint256) {
        return _capability;
    }

    function emptyTokenPrice() external view returns (uint256) {
        return _emptyTokenPrice;
    }

    function totalEnergySupply() external view returns (uint256) {
        return uint256(_maxSupply) * _capability;
    }

    function lastTokenId() external view returns (uint256) {
        return _supply.lastTokenId;
    }

    function totalEnergy() external view returns (uint256) {
        return _supply.energy;
    }

    function totalSupply() external view returns (uint256) {
        return _supply.lastTokenId;
    }

    function tokenByIndex(uint256 index) external view returns (uint256) {
        if (index >= _supply.lastTokenId) revert ERC721OutOfBoundsIndex(address(0), index);
        return index + 1;
    }

    function tokenOfOwnerByIndex(address owner, uint256 index) external view returns (uint256) {
        if (owner == address(0) || index >= balanceOf(owner)) revert ERC721OutOfBoundsIndex(owner, index);
        return _shelves[owner][index];
    }

    function prosumers(address prosumer)
        external
        view
        returns (
            address smartMeter,
            bool confirmed,
            uint256 full,
            uint256 partlyCharged,
            uint256 empty,
            uint256 onSale,
            uint256 produced,
            uint256 stored,
            uint256 consumed,
            uint256 covered
        )
    {
        Prosumer memory owner = _prosumers[prosumer];
        (smartMeter, confirmed) = (owner.meter, owner.confirmed);
        (full, partlyCharged, empty, onSale) = (owner.full, owner.partly, owner.empty, owner.onSale);
        (produced, stored, consumed, covered) = (owner.produced, owner.stored, owner.consumed, owner.covered);
    }

    function meters(address meter)
        external
        view
        returns (
            address operator, uint8 source, uint64 maxPowerW, bool concentrator, bool certified, address prosumer
        )
    {
        Meter memory known = _meters[meter];
        (operator, source, maxPowerW) = (known.operator, known.source, known.maxPowerW);
        (concentrator, certified, prosumer) = (known.concentrator, known.certified, known.prosumer);
    }

    /// The nonce is that of permits, which are left out here.
    function tokens(uint256 tokenId)
        external
        view
        returns (
            address owner,
            uint256 energy,
            bool onSale,
            uint256 tokenPrice,
            uint256 energyPrice,
            uint256 price,
            address approved,
            uint256 nonce,
            uint256 index
        )
    {
        Token memory token = _tokens[tokenId];
        (owner, energy, onSale, index) = (ownerOf(tokenId), token.energy, token.onSale, token.slot);
        (tokenPrice, energyPrice, price) = (token.tokenPrice, token.energyPrice, sellingPrice(tokenId));
        (approved, nonce) = (getApproved(tokenId), 0);
    }

    /// The Wh in the owner's tokens that are not on sale, and the Wh that these could still take (S-5).
    function energyOf(address owner) external view returns (uint256 stored, uint256 spare) {
        Prosumer memory shelf = _refreshed(_prosumers[owner]);
        uint256 room = uint256(shelf.partly + shelf.empty) * shelf.capability;
        stored = shelf.fullEnergy + shelf.partlyEnergy;
        spare = room > shelf.partlyEnergy ? room - shelf.partlyEnergy : 0;
    }

    // Readings

    /// S-3.
    function _checkMeter(address prosumer) private view returns (Prosumer storage owner, Meter storage meter) {
        owner = _prosumers[prosumer];
        if (owner.meter == address(0)) revert NotRegistered(prosumer);
        if (owner.meter != msg.sender || !owner.confirmed) revert NotConfirmedMeter(prosumer, msg.sender);
        meter = _certified(msg.sender);
    }

    /// S-6. Rounded up to a whole Wh.
    function _checkPlausible(uint256 amount, uint256 maxPowerW, uint256 elapsed) private pure {
        uint256 limit = (maxPowerW * elapsed + MS_PER_HOUR - 1) / MS_PER_HOUR;
        if (maxPowerW != 0 && amount > limit) revert ImplausibleReading(amount, limit);
    }

    function _produce(address address_, Prosumer storage owner, uint64 amount) private returns (uint64 stored) {
        Prosumer memory shelf = _refreshed(owner);
        stored = _charge(address_, shelf, amount);
        shelf.produced += amount;
        shelf.stored += stored;
        _prosumers[address_] = shelf;
        if (stored != 0) {
            Supply memory supply = _supply;
            supply.energy += stored;
            supply.refilled += stored;
            _supply = supply;
        }
        emit EnergyRefilled(address_, msg.sender, amount, stored);
    }

    function _consume(address address_, Prosumer storage owner, uint64 amount) private returns (uint64 covered) {
        Prosumer memory shelf = _refreshed(owner);
        covered = _drain(address_, shelf, amount);
        shelf.consumed += amount;
        shelf.covered += covered;
        _prosumers[address_] = shelf;
        if (covered != 0) {
            Supply memory supply = _supply;
            supply.energy -= covered;
            supply.covered += covered;
            _supply = supply;
        }
        emit EnergyConsumed(address_, msg.sender, amount, covered);
    }

    /// S-4. Fills the token behind the full ones; moves borders, not tokens.
    function _charge(address owner, Prosumer memory shelf, uint64 amount) private returns (uint64 stored) {
        for (uint256 i = 0; i < TOKENS_PER_READING_MAX && stored < amount; i++) {
            if (shelf.partly + shelf.empty == 0) break;
            uint256 tokenId = _shelves[owner][shelf.full];
            Token storage token = _tokens[tokenId];
            uint64 energy = token.energy;
            if (shelf.partly == 0) (shelf.partly, shelf.empty) = (1, shelf.empty - 1);
            uint64 room = shelf.capability > energy ? shelf.capability - energy : 0;
            if (room > amount - stored) room = amount - stored;
            if (room != 0) {
                energy += room;
                stored += room;
                shelf.partlyEnergy += room;
                token.energy = energy;
                emit MetadataUpdate(tokenId);
            }
            if (energy >= shelf.capability) {
                (shelf.full, shelf.partly) = (shelf.full + 1, shelf.partly - 1);
                shelf.fullEnergy += energy;
                shelf.partlyEnergy -= energy;
            }
        }
    }

    /// S-4. Empties the token before the empty ones; moves borders, not tokens.
    function _drain(address owner, Prosumer memory shelf, uint64 amount) private returns (uint64 covered) {
        for (uint256 i = 0; i < TOKENS_PER_READING_MAX && covered < amount; i++) {
            if (shelf.full + shelf.partly == 0) break;
            uint256 tokenId = _shelves[owner][shelf.full + shelf.partly - 1];
            Token storage token = _tokens[tokenId];
            uint64 energy = token.energy;
            if (shelf.partly == 0) {
                (shelf.full, shelf.partly) = (shelf.full - 1, 1);
                shelf.fullEnergy -= energy;
                shelf.partlyEnergy += energy;
            }
            uint64 taken = energy < amount - covered ? energy : amount - covered;
            energy -= taken;
            covered += taken;
            shelf.partlyEnergy -= taken;
            token.energy = energy;
            emit MetadataUpdate(tokenId);
            if (energy == 0) (shelf.partly, shelf.empty) = (shelf.partly - 1, shelf.empty + 1);
        }
    }

    // The shelf (S-4): an owner's tokens in slots of four regions: full | partly charged | empty | on sale

    /// S-5. Tells full from partly charged by the capability of now: only a border moves.
    function _refreshed(Prosumer storage owner) private view returns (Prosumer memory shelf) {
        shelf = owner;
        uint64 capability = _capability;
        if (capability > shelf.capability) {
            (shelf.full, shelf.partly) = (0, shelf.full + shelf.partly);
            (shelf.fullEnergy, shelf.partlyEnergy) = (0, shelf.fullEnergy + shelf.partlyEnergy);
        }
        shelf.capability = capability;
    }

    function _reshelve(address owner, uint256 tokenId, bool onSale) private {
        _unshelve(owner, tokenId);
        _tokens[tokenId].onSale = onSale;
        _shelve(owner, tokenId);
    }

    /// Puts the token at the end of its region; each region behind moves its first token to its end.
    function _shelve(address owner, uint256 tokenId) private {
        Prosumer memory shelf = _refreshed(_prosumers[owner]);
        Token storage token = _tokens[tokenId];
        uint256 region = EMPTY;
        if (token.onSale) region = ON_SALE;
        else if (token.energy >= shelf.capability) region = FULL;
        else if (token.energy != 0) region = PARTLY;

        uint64[4] memory counts = _counts(shelf);
        uint64 hole = counts[0] + counts[1] + counts[2] + counts[3];
        uint64 first = hole;
        for (uint256 behind = ON_SALE; behind > region; behind--) {
            first -= counts[behind];
            if (counts[behind] != 0) {
                _place(owner, hole, _shelves[owner][first]);
                hole = first;
            }
        }
        _place(owner, hole, tokenId);
        counts[region]++;
        if (region == FULL) shelf.fullEnergy += token.energy;
        if (region == PARTLY) shelf.partlyEnergy += token.energy;
        _store(owner, shelf, counts);
    }

    /// Takes the token out; the last one of its region fills the hole, each region behind moves its last to its front.
    function _unshelve(address owner, uint256 tokenId) private {
        Prosumer memory shelf = _refreshed(_prosumers[owner]);
        Token storage token = _tokens[tokenId];
        uint64[4] memory counts = _counts(shelf);
        uint64 hole = token.slot;
        uint256 region = FULL;
        uint64 end = counts[FULL];
        while (hole >= end) end += counts[++region];

        for (uint256 each = region; each <= ON_SALE; each++) {
            if (each != region) end += counts[each];
            if (counts[each] != 0 && end - 1 != hole) {
                _place(owner, hole, _shelves[owner][end - 1]);
                hole = end - 1;
            }
        }
        delete _shelves[owner][hole];
        counts[region]--;
        if (region == FULL) shelf.fullEnergy -= token.energy;
        if (region == PARTLY) shelf.partlyEnergy -= token.energy;
        _store(owner, shelf, counts);
    }

    function _place(address owner, uint64 slot, uint256 tokenId) private {
        _shelves[owner][slot] = tokenId;
        _tokens[tokenId].slot = slot;
    }

    function _counts(Prosumer memory shelf) private pure returns (uint64[4] memory) {
        return [shelf.full, shelf.partly, shelf.empty, shelf.onSale];
    }

    function _store(address owner, Prosumer memory shelf, uint64[4] memory counts) private {
        (shelf.full, shelf.partly, shelf.empty, shelf.onSale) = (counts[0], counts[1], counts[2], counts[3]);
        _prosumers[owner] = shelf;
    }

    // Checks and money

    function _certified(address meter) private view returns (Meter storage known) {
        known = _meters[meter];
        if (!known.certified) revert MeterNotCertified(meter);
    }

    function _checkFree(Meter storage meter, address address_, address prosumer) private view {
        if (meter.prosumer != address(0) && meter.prosumer != prosumer) revert MeterTaken(address_, meter.prosumer);
    }

    function _checkName(string calldata text) private pure {
        if (bytes(text).length == 0 || bytes(text).length > NAME_BYTES_MAX) revert InvalidName(text, NAME_BYTES_MAX);
    }

    function _checkAmount(uint256 amount, uint256 minimum, uint256 maximum) private pure {
        if (amount < minimum || amount > maximum) revert InvalidAmount(amount, minimum, maximum);
    }

    /// S-9: what was sent above the price returns.
    function _pay(address to, uint256 price) private {
        Address.sendValue(payable(to), price);
        if (msg.value > price) Address.sendValue(payable(msg.sender), msg.value - price);
    }

    function _now() private view returns (uint64) {
        return uint64(block.timestamp * 1_000);
    }
}
