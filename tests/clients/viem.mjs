// viem against a node, in the words of its documentation.

import {
  BaseError,
  ContractFunctionRevertedError,
  createPublicClient,
  createWalletClient,
  defineChain,
  http,
  nonceManager,
  parseEventLogs,
  parseSignature,
  serializeCompactSignature,
  signatureToCompactSignature,
  webSocket,
  zeroAddress,
} from "viem";
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts";
import { refusal, run, task, until } from "./checks.mjs";

// `blockTime` is what makes viem ask three times a second instead of every four.
const chain = defineChain({
  id: task.chainId,
  name: "Crypto-Trading",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [task.url], webSocket: [task.socketUrl] } },
  blockTime: 333,
});
const reader = createPublicClient({ chain, transport: http() });
const batching = createPublicClient({ chain, transport: http(task.url, { batch: true }) });
const socket = createPublicClient({ chain, transport: webSocket() });
const alice = createWalletClient({ chain, transport: http(), account: privateKeyToAccount(task.aliceKey) });
const bob = createWalletClient({ chain, transport: http(), account: privateKeyToAccount(task.bobKey) });
const modules = await reader.request({ method: "ctt_abi" });
const { address, abi } = modules.CTT;
const ctt = { address, abi };

const stranger = () => privateKeyToAccount(generatePrivateKey()).address;
const read = (functionName, ...args) => reader.readContract({ ...ctt, functionName, args });
const plain = ({ args }) => ({ from: args.from, to: args.to, tokenId: args.tokenId });
const transfers = ({ logs }) => parseEventLogs({ abi, logs, eventName: "Transfer" }).map(plain);
const wait = (hash) => reader.waitForTransactionReceipt({ hash });
const write = async (client, functionName, args, fields) =>
  wait(await client.writeContract({ ...ctt, functionName, args, ...fields }));
const buy = async (count) =>
  write(alice, "buyEmptyTokens", [count], { value: (await read("emptyTokenPrice")) * BigInt(count) });

await run({
  async connect() {
    const block = await reader.getBlock({ includeTransactions: true });
    const first = await reader.getBlock({ blockNumber: 0n });
    const unknown = await refusal(() => reader.getTransactionReceipt({ hash: first.hash }));
    return {
      chainId: BigInt(await reader.getChainId()),
      isAhead: (await reader.getBlockNumber({ cacheTime: 0 })) >= block.number,
      genesisIsFoundByHash: (await reader.getBlock({ blockHash: first.hash })).number === 0n,
      unknownReceipt: unknown.name,
      balance: await reader.getBalance({ address: alice.account.address }),
      codes: [await reader.getCode({ address }), (await reader.getCode({ address: bob.account.address })) ?? "0x"],
      slot: await reader.getStorageAt({ address, slot: "0x0" }),
      accounts: await alice.getAddresses(),
      socket: await socket.getChainId(),
    };
  },

  async fees() {
    const { maxFeePerGas, maxPriorityFeePerGas } = await reader.estimateFeesPerGas();
    const history = await reader.getFeeHistory({ blockCount: 1, rewardPercentiles: [25, 75.5] });
    const estimate = await reader.estimateGas({ account: alice.account, to: bob.account.address, value: 1n });
    const list = await reader.createAccessList({ account: alice.account.address, to: address, data: "0x95d89b41" });
    return {
      gasPrice: await reader.getGasPrice(),
      maxFeePerGas,
      maxPriorityFeePerGas,
      estimate,
      history: [history.baseFeePerGas, history.reward.at(-1)],
      accessList: list.accessList,
    };
  },

  async batches() {
    const { address } = alice.account;
    const asked = [...Array(20).keys()].map((at) =>
      batching.getBalance({ address, ...(at ? { blockTag: "latest" } : { blockNumber: 0n }) }),
    );
    return (await Promise.all(asked)).length;
  },

  async kinds() {
    const sent = [];
    for (const fields of [
      { type: "legacy", gasPrice: 0n },
      { type: "eip2930", gasPrice: 0n, accessList: [{ address, storageKeys: [`0x${"01".repeat(32)}`] }] },
      { type: "eip1559", maxFeePerGas: 10n, maxPriorityFeePerGas: 1n },
      {},
    ]) {
      const to = stranger();
      const hash = await alice.sendTransaction({ to, value: 5n, ...fields });
      const receipt = await wait(hash);
      const found = await reader.getTransaction({ hash });
      sent.push({
        type: found.typeHex === receipt.type ? receipt.type : Number(found.typeHex),
        status: receipt.status,
        price: receipt.effectiveGasPrice,
        value: await reader.getBalance({ address: to }),
        sender: found.from === alice.account.address.toLowerCase() && found.hash === hash,
        accessList: (found.accessList ?? []).length,
        confirmed: (await reader.getTransactionConfirmations({ hash })) >= 1n,
      });
    }
    return sent;
  },

  async events() {
    const receipt = await buy(2);
    const { blockNumber: fromBlock } = receipt;
    const query = { ...ctt, eventName: "Transfer", fromBlock, toBlock: fromBlock };
    const found = await reader.getContractEvents({ ...query, args: { to: alice.account.address } });
    const others = await reader.getContractEvents({ ...query, args: { from: bob.account.address }, fromBlock: 0n });
    return { told: transfers(receipt), found: found.map(plain), others: others.length };
  },

  async filters() {
    const filter = await reader.createContractEventFilter({ ...ctt, eventName: "Transfer" });
    const blocks = await reader.createBlockFilter();
    const pending = await reader.createPendingTransactionFilter();
    const heard = [];
    const stop = reader.watchContractEvent({
      ...ctt,
      eventName: "Transfer",
      onLogs: (logs) => heard.push(...logs.map(plain)),
    });
    await reader.getFilterChanges({ filter });
    await new Promise((done) => setTimeout(done, 400)); // until the watch has its filter
    const receipt = await buy(2);
    const polled = await reader.getFilterChanges({ filter });
    await until(() => heard.length === 2);
    stop();
    const hashes = await reader.getFilterChanges({ filter: blocks });
    const entered = await reader.getFilterChanges({ filter: pending });
    const gone = await Promise.all([filter, blocks, pending].map((each) => reader.uninstallFilter({ filter: each })));
    return {
      told: transfers(receipt),
      heard,
      polled: polled.map(plain),
      again: await reader.uninstallFilter({ filter }),
      block: hashes.includes(receipt.blockHash),
      pending: entered,
      hash: receipt.transactionHash,
      gone,
    };
  },

  async sockets() {
    const [heads, heard, pending, finalized] = [[], [], [], []];
    const { unsubscribe } = await socket.transport.subscribe({
      params: ["ctt_finalized"],
      onData: ({ result }) => finalized.push(result),
    });
    const stops = [
      unsubscribe,
      socket.watchBlocks({ onBlock: (block) => heads.push(Number(block.number)) }),
      socket.watchContractEvent({
        ...ctt,
        eventName: "Transfer",
        onLogs: (logs) => heard.push(...logs.map(plain)),
      }),
      socket.watchPendingTransactions({ onTransactions: (hashes) => pending.push(...hashes) }),
    ];
    await until(() => heads.length);
    const receipt = await buy(2);
    await until(() => heads.length > 2 && heard.length === 2 && finalized.length);
    stops.forEach((stop) => stop());
    const [certified] = finalized;
    const { hash } = await reader.getBlock({ blockNumber: BigInt(certified.height) });
    return {
      told: transfers(receipt),
      heard,
      heads: heads.slice(0, 3),
      isPending: pending.includes(receipt.transactionHash),
      isCertified: certified.blockHash === hash && certified.signers.length === 1,
      read: Number(await socket.getBlockNumber({ cacheTime: 0 })) >= heads.at(-1),
    };
  },

  async reverts() {
    const reverted = (error) => error.walk((cause) => cause instanceof ContractFunctionRevertedError);
    const named = (error) => [reverted(error).data.errorName, ...reverted(error).data.args];
    const capability = { ...ctt, functionName: "setTokenCapability", args: [5n], account: alice.account };
    const three = { ...ctt, functionName: "buyEmptyTokens", args: [3n], value: 1n, account: alice.account };
    const call = named(await refusal(() => reader.simulateContract(capability)));
    const estimate = named(await refusal(() => reader.estimateContractGas(capability)));
    const figures = named(await refusal(() => reader.simulateContract(three)));
    const unknown = await refusal(() => reader.call({ to: address, data: "0x12345678" }));
    const mined = await write(alice, "setTokenCapability", [5n], { gas: 100_000n });
    return {
      call,
      estimate,
      figures,
      unknown: [unknown.walk((cause) => cause.code === 3).data, unknown.walk((cause) => cause.code === 3).message],
      mined: [mined.status === "reverted" ? 0 : 1, mined.logs.length],
      notACaller: (await reader.call({ to: bob.account.address, data: "0x12345678" })).data ?? "0x",
    };
  },

  async refusals() {
    const to = alice.account.address;
    const nonce = await reader.getTransactionCount({ address: bob.account.address });
    const names = {};
    const attempt = async (name, fields) => {
      const error = await refusal(() => bob.sendTransaction({ to, gas: 21_000n, gasPrice: 0n, ...fields }));
      names[name] = error instanceof BaseError ? [error.cause.name, error.details] : `${error}`;
    };
    await bob.sendTransaction({ to, gas: 21_000n, nonce: nonce + 1, value: 1n });
    await attempt("replacement", { nonce: nonce + 1, value: 2n });
    await wait(await bob.sendTransaction({ to, nonce }));
    await attempt("nonce", { nonce, value: 3n });
    await attempt("funds", { value: 10n ** 30n });
    await attempt("gas", { gas: 20_999n });
    await attempt("creation", { to: null, data: "0x6000", gas: 100_000n });
    return names;
  },

  async permits() {
    const name = await read("name");
    const domain = { name, version: "1", chainId: task.chainId, verifyingContract: address };
    const types = {
      Permit: [
        { name: "spender", type: "address" },
        { name: "tokenId", type: "uint256" },
        { name: "nonce", type: "uint256" },
        { name: "deadline", type: "uint256" },
      ],
    };
    const message = {
      spender: bob.account.address,
      tokenId: 1n,
      nonce: await read("nonces", 1n),
      deadline: BigInt(task.deadline),
    };
    const typed = { domain, types, primaryType: "Permit", message };
    const signature = await alice.signTypedData(typed);
    const compact = serializeCompactSignature(signatureToCompactSignature(parseSignature(signature)));
    const approved = [];
    for (const form of [signature, compact]) {
      await write(bob, "permit", [bob.account.address, 1n, message.deadline, form]);
      approved.push(await read("getApproved", 1n));
      await write(alice, "approve", [zeroAddress, 1n]);
    }
    const isValid = await reader.verifyTypedData({ ...typed, address: alice.account.address, signature });
    return { signature, compact, approved, isValid };
  },

  async contracts() {
    await write(alice, "setOnSale", [2n, 70n, 3n]);
    const price = await read("sellingPrice", 2n);
    await write(bob, "buyToken", [2n], { value: price });
    await write(bob, "safeTransferFrom", [bob.account.address, alice.account.address, 2n]);
    const token = await read("tokens", 2n);
    const domain = await reader.getEip712Domain({ address });
    return {
      symbol: await read("symbol"),
      isErc721: await read("supportsInterface", "0x80ac58cd"),
      uri: (await read("tokenURI", 1n)).slice(0, 29),
      price,
      token: token.slice(0, 3),
      domain: BigInt(domain.domain.chainId),
      past: await reader.readContract({
        ...ctt,
        functionName: "balanceOf",
        args: [alice.account.address],
        blockNumber: 0n,
      }),
    };
  },

  async clearing() {
    const market = modules.Market;
    const placed = await wait(
      await alice.writeContract({ ...market, functionName: "bid", args: [3_000n, 10n ** 14n, 2n ** 40n] }),
    );
    const query = { ...market, eventName: "AuctionCleared", fromBlock: placed.blockNumber };
    const [cleared] = await until(async () => {
      const found = await reader.getContractEvents(query);
      return found.length && found;
    });
    const block = await reader.getBlock({ blockNumber: cleared.blockNumber, includeTransactions: true });
    const [first] = block.transactions;
    const receipt = await reader.getTransactionReceipt({ hash: first.hash });
    const alone = await reader.getTransaction({ hash: first.hash });
    return {
      types: [Number(first.typeHex), Number(alone.typeHex), Number(receipt.type)],
      from: first.from,
      isFirst: first.hash === cleared.transactionHash && receipt.transactionIndex === 0,
      status: receipt.status,
      bids: cleared.args.bids,
    };
  },

  async synchronous() {
    const to = stranger();
    const receipt = await alice.sendTransactionSync({ to, value: 7n });
    const request = await alice.prepareTransactionRequest({ to, value: 7n });
    const serializedTransaction = await alice.signTransaction(request);
    const raw = await alice.sendRawTransactionSync({ serializedTransaction });
    const written = await alice.writeContractSync({ ...ctt, functionName: "approve", args: [to, 1n] });
    return {
      statuses: [receipt.status, raw.status, written.status],
      type: request.type,
      value: await reader.getBalance({ address: to }),
      approved: (await read("getApproved", 1n)) === to,
    };
  },

  async hundred() {
    const seller = createWalletClient({
      chain,
      transport: http(),
      account: privateKeyToAccount(task.adminKey, { nonceManager }),
    });
    const to = stranger();
    const first = await reader.getTransactionCount({ address: seller.account.address });
    const hashes = [];
    for (let count = 0; count < 100; count += 1) hashes.push(await seller.sendTransaction({ to, value: 1n }));
    const receipts = await Promise.all(hashes.map(wait));
    const last = await reader.getTransaction({ hash: hashes.at(-1) });
    return {
      nonces: last.nonce === first + 99,
      included: receipts.filter((receipt) => receipt.status === "success").length,
      value: await reader.getBalance({ address: to }),
    };
  },
});
