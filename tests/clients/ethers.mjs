// ethers against a node, in the words of its documentation.

import { Contract, JsonRpcProvider, NonceManager, Signature, Wallet, WebSocketProvider, ZeroAddress } from "ethers";
import { refusal, run, task, until } from "./checks.mjs";

// As the library comes, but for how often it asks for news: that is four seconds.
const provider = new JsonRpcProvider(task.url, undefined, { pollingInterval: 100 });
// Without the cache of 250 ms, which would give a nonce twice.
const exact = new JsonRpcProvider(task.url, undefined, { pollingInterval: 100, cacheTimeout: -1 });
const socket = new WebSocketProvider(task.socketUrl);
const modules = await provider.send("ctt_abi", []);
const { address, abi } = modules.CTT;
const alice = new Wallet(task.aliceKey, exact);
const bob = new Wallet(task.bobKey, exact);
const ctt = new Contract(address, abi, alice);

const transfers = (receipt) =>
  receipt.logs.map((log) => ctt.interface.parseLog(log)).filter((event) => event.name === "Transfer").map(plain);
const plain = ({ args }) => ({ from: args.from, to: args.to, tokenId: args.tokenId });
const buy = async (count) => {
  const price = await ctt.emptyTokenPrice();
  return (await ctt.buyEmptyTokens(count, { value: price * BigInt(count) })).wait();
};

await run({
  async connect() {
    const { chainId, name } = await provider.getNetwork();
    const block = await provider.getBlock("latest", true);
    const first = await provider.getBlock(0);
    return {
      chainId,
      name,
      isAhead: (await provider.getBlockNumber()) >= block.number,
      genesisIsFoundByHash: (await provider.getBlock(first.hash)).number === 0,
      unknownBlock: await provider.getBlock(10 ** 9),
      unknownReceipt: await provider.getTransactionReceipt(first.hash),
      balance: await provider.getBalance(alice.address),
      codes: [await provider.getCode(address), await provider.getCode(bob.address)],
      slot: await provider.getStorage(address, 0),
      accounts: await provider.listAccounts(),
    };
  },

  async fees() {
    const { gasPrice, maxFeePerGas, maxPriorityFeePerGas } = await provider.getFeeData();
    const estimate = await provider.estimateGas({ from: alice.address, to: bob.address, value: 1n });
    return { gasPrice, maxFeePerGas, maxPriorityFeePerGas, estimate };
  },

  async batches() {
    const heights = [...Array(20).keys()].map((at) => provider.getBalance(alice.address, at ? "latest" : 0));
    return (await Promise.all(heights)).length;
  },

  async kinds() {
    const sent = [];
    for (const fields of [
      { type: 0, gasPrice: 0 },
      { type: 1, gasPrice: 0, accessList: [{ address, storageKeys: [`0x${"01".repeat(32)}`] }] },
      { type: 2, maxFeePerGas: 10, maxPriorityFeePerGas: 1 },
      {},
    ]) {
      const to = Wallet.createRandom().address;
      const response = await alice.sendTransaction({ to, value: 5, ...fields });
      const receipt = await response.wait();
      const found = await provider.getTransaction(response.hash);
      sent.push({
        type: receipt.type,
        status: receipt.status,
        price: receipt.gasPrice,
        value: await exact.getBalance(to),
        sender: found.from === alice.address && found.hash === response.hash && found.type === receipt.type,
        accessList: (found.accessList ?? []).length,
        confirmed: (await receipt.confirmations()) >= 1,
      });
    }
    return sent;
  },

  async events() {
    const receipt = await buy(2);
    const { number } = await receipt.getBlock();
    const found = await ctt.queryFilter(ctt.filters.Transfer(null, alice.address), number, number);
    const others = await ctt.queryFilter(ctt.filters.Transfer(bob.address), 0);
    return { told: transfers(receipt), found: found.map(plain), others: others.length };
  },

  async filters() {
    const heard = [];
    const blocks = [];
    await exact.on("block", (number) => blocks.push(number));
    await ctt.on("Transfer", (from, to, tokenId) => heard.push({ from, to, tokenId }));
    await until(() => blocks.length);
    const receipt = await buy(2);
    await until(() => heard.length === 2 && blocks.length > 2);
    await exact.removeAllListeners();
    return { told: transfers(receipt), heard, blocks: blocks.slice(0, 3) };
  },

  async sockets() {
    const heads = [];
    const heard = [];
    const pending = [];
    await socket.on("block", (number) => heads.push(number));
    await socket.on("pending", (hash) => pending.push(hash));
    await ctt.connect(socket).on("Transfer", (from, to, tokenId) => heard.push({ from, to, tokenId }));
    await until(() => heads.length);
    const receipt = await buy(2);
    await until(() => heads.length > 2 && heard.length === 2);
    await socket.removeAllListeners();
    return {
      told: transfers(receipt),
      heard,
      heads: heads.slice(0, 3),
      isPending: pending.includes(receipt.hash),
      read: (await socket.getBlock("latest")).number >= heads.at(-1),
    };
  },

  async reverts() {
    const named = ({ name, args }) => [name, ...args];
    const call = named((await refusal(() => ctt.setTokenCapability.staticCall(5))).revert);
    const { data } = await refusal(() => ctt.setTokenCapability.estimateGas(5));
    const figures = named((await refusal(() => ctt.buyEmptyTokens.staticCall(3, { value: 1 }))).revert);
    const unknown = await refusal(() => provider.call({ to: address, data: "0x12345678" }));
    const sent = await ctt.setTokenCapability(5, { gasLimit: 100_000 });
    const mined = await refusal(() => sent.wait());
    return {
      call,
      estimate: named(ctt.interface.parseError(data)),
      figures,
      unknown: [unknown.data, unknown.info.error.message],
      mined: [mined.receipt.status, mined.receipt.logs.length],
      notACaller: await provider.call({ to: bob.address, data: "0x12345678" }),
    };
  },

  async refusals() {
    const to = alice.address;
    const nonce = await exact.getTransactionCount(bob.address);
    const codes = {};
    const attempt = async (name, fields) => {
      codes[name] = (await refusal(() => bob.sendTransaction({ to, gasLimit: 21_000, gasPrice: 0, ...fields }))).code;
    };
    await bob.sendTransaction({ to, gasLimit: 21_000, nonce: nonce + 1, value: 1 });
    await attempt("replacement", { nonce: nonce + 1, value: 2 });
    await (await bob.sendTransaction({ to, nonce })).wait();
    await attempt("nonce", { nonce, value: 3 });
    await attempt("funds", { value: 10n ** 30n });
    await attempt("chain", { chainId: 1n });
    await attempt("creation", { to: null, data: "0x6000", gasLimit: 100_000 });
    return codes;
  },

  async permits() {
    const name = await ctt.name();
    const domain = { name, version: "1", chainId: task.chainId, verifyingContract: address };
    const types = {
      Permit: [
        { name: "spender", type: "address" },
        { name: "tokenId", type: "uint256" },
        { name: "nonce", type: "uint256" },
        { name: "deadline", type: "uint256" },
      ],
    };
    const message = { spender: bob.address, tokenId: 1, nonce: await ctt.nonces(1), deadline: task.deadline };
    const signature = Signature.from(await alice.signTypedData(domain, types, message));
    const approved = [];
    for (const form of [signature.serialized, signature.compactSerialized]) {
      await (await ctt.connect(bob).permit(bob.address, 1, task.deadline, form)).wait();
      approved.push(await ctt.getApproved(1));
      await (await ctt.approve(ZeroAddress, 1)).wait();
    }
    return { signature: signature.serialized, compact: signature.compactSerialized, approved };
  },

  async contracts() {
    const offer = await ctt["setOnSale(uint256,uint256,uint256)"](2, 70, 3);
    await offer.wait();
    const price = await ctt.sellingPrice(2);
    await (await ctt.connect(bob)["buyToken(uint256)"](2, { value: price })).wait();
    const safe = ctt.connect(bob)["safeTransferFrom(address,address,uint256)"];
    await (await safe(bob.address, alice.address, 2)).wait();
    const token = await ctt.tokens(2);
    return {
      symbol: await ctt.symbol(),
      isErc721: await ctt.supportsInterface("0x80ac58cd"),
      uri: (await ctt.tokenURI(1)).slice(0, 29),
      price,
      token: [token.owner ?? token[0], token[1], token[2]],
      domain: (await ctt.eip712Domain()).chainId,
      past: await ctt.balanceOf(alice.address, { blockTag: 0 }),
    };
  },

  async clearing() {
    const market = new Contract(modules.Market.address, modules.Market.abi, alice);
    const placed = await (await market.bid(3_000, 10n ** 14n, 2n ** 40n)).wait();
    const [cleared] = await until(async () => {
      const found = await market.queryFilter("AuctionCleared", placed.blockNumber);
      return found.length && found;
    });
    const block = await provider.getBlock(cleared.blockNumber, true);
    const [first, receipt] = [block.prefetchedTransactions[0], await cleared.getTransactionReceipt()];
    const alone = await provider.getTransaction(first.hash);
    return {
      types: [first.type, alone.type, receipt.type],
      from: first.from,
      isFirst: first.hash === cleared.transactionHash && receipt.index === 0,
      status: receipt.status,
      bids: cleared.args.bids,
    };
  },

  async hundred() {
    const [seller, to] = [new NonceManager(new Wallet(task.adminKey, provider)), Wallet.createRandom().address];
    const first = await exact.getTransactionCount(await seller.getAddress());
    const sent = [];
    for (let count = 0; count < 100; count += 1) sent.push(await seller.sendTransaction({ to, value: 1 }));
    const receipts = await Promise.all(sent.map((response) => response.wait()));
    return {
      nonces: sent.every((response, at) => response.nonce === first + at),
      included: receipts.filter((receipt) => receipt.status === 1).length,
      value: await exact.getBalance(to),
    };
  },
});
