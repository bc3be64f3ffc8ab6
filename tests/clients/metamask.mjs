// What MetaMask's controllers ask a custom network for, through MetaMask's own middleware, block tracker, nonce
// tracker and signing. The wallet's windows are not here: where its user would click, this script goes on.

import { FeeMarketEIP1559Transaction } from "@ethereumjs/tx";
import { Common } from "@ethereumjs/common";
import { PollingBlockTracker } from "@metamask/eth-block-tracker";
import {
  createBlockCacheMiddleware,
  createBlockRefRewriteMiddleware,
  createBlockTrackerInspectorMiddleware,
  createFetchMiddleware,
  createInflightCacheMiddleware,
} from "@metamask/eth-json-rpc-middleware";
import { providerFromEngine, providerFromMiddleware } from "@metamask/eth-json-rpc-provider";
import { SignTypedDataVersion, signTypedData } from "@metamask/eth-sig-util";
import { JsonRpcEngine, mergeMiddleware } from "@metamask/json-rpc-engine";
import { NonceTracker } from "@metamask/nonce-tracker";
import { Interface } from "ethers";
import { refusal, run, task, until } from "./checks.mjs";

const rpcService = {
  async request(body) {
    const headers = { Accept: "application/json", "Content-Type": "application/json" };
    const response = await fetch(task.url, { method: "POST", headers, body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return response.json();
  },
};
const fetching = createFetchMiddleware({ rpcService });
const blockTracker = new PollingBlockTracker({ provider: providerFromMiddleware(fetching), pollingInterval: 100 });
const engine = new JsonRpcEngine();
engine.push(
  mergeMiddleware([
    createBlockRefRewriteMiddleware({ blockTracker }),
    createBlockCacheMiddleware({ blockTracker }),
    createInflightCacheMiddleware(),
    createBlockTrackerInspectorMiddleware({ blockTracker }),
    fetching,
  ]),
);
const provider = providerFromEngine(engine);
const ask = (method, ...params) => provider.request({ method, params });

const transactions = []; // of the wallet's activity: { nonce, hash, receipt }
const listed = (isDone) => () =>
  transactions.filter((each) => Boolean(each.receipt) === isDone).map(({ nonce }) => ({ txParams: { nonce } }));
const nonceTracker = new NonceTracker({
  provider,
  blockTracker,
  getPendingTransactions: listed(false),
  getConfirmedTransactions: listed(true),
});

const modules = await ask("ctt_abi");
const ctt = modules.CTT.address;
const token = new Interface(modules.CTT.abi);
const read = async (name, ...values) =>
  token.decodeFunctionResult(name, await ask("eth_call", { to: ctt, data: token.encodeFunctionData(name, values) }, "latest"))[0];
const hex = (number) => `0x${number.toString(16)}`;
const key = Buffer.from(task.aliceKey.slice(2), "hex");

/** As the transaction controller does: gas with its margin, fees, nonce under a lock, signature, publication. */
async function publish(fields) {
  const call = { from: task.alice, value: "0x0", data: "0x", ...fields };
  await ask("eth_getCode", call.to, "latest");
  const { gasLimit, baseFeePerGas } = await ask("eth_getBlockByNumber", "latest", false);
  const ceiling = (BigInt(gasLimit) * 95n) / 100n;
  const estimate = BigInt(await ask("eth_estimateGas", { ...call, gas: hex(ceiling) }));
  const gas = (estimate * 3n) / 2n > ceiling ? estimate : (estimate * 3n) / 2n;
  await ask("eth_feeHistory", "0x5", "latest", [10, 20, 30]);
  const { nextNonce, releaseLock } = await nonceTracker.getNonceLock(task.alice);
  const unsigned = FeeMarketEIP1559Transaction.fromTxData(
    {
      ...call,
      chainId: hex(task.chainId),
      nonce: hex(nextNonce),
      gasLimit: hex(gas),
      maxFeePerGas: hex(BigInt(baseFeePerGas) * 2n),
      maxPriorityFeePerGas: "0x0",
    },
    { common: Common.custom({ chainId: task.chainId }, { hardfork: "london" }) },
  );
  const raw = `0x${Buffer.from(unsigned.sign(key).serialize()).toString("hex")}`;
  const sent = { nonce: hex(nextNonce), hash: await ask("eth_sendRawTransaction", raw) };
  transactions.push(sent);
  releaseLock();
  return sent;
}

/** As the tracker of pending transactions does, with each new block. */
async function confirm(sent) {
  sent.receipt = await until(async () => {
    await blockTracker.getLatestBlock({ useCache: false });
    return ask("eth_getTransactionReceipt", sent.hash);
  });
  const block = await ask("eth_getBlockByHash", sent.receipt.blockHash, false);
  return { status: sent.receipt.status, type: sent.receipt.type, isEip1559: block.baseFeePerGas };
}

await run({
  async network() {
    const chainId = await ask("eth_chainId");
    const version = await ask("net_version");
    const block = await ask("eth_getBlockByNumber", "latest", false);
    return { chainId, version, baseFee: block.baseFeePerGas, balance: await ask("eth_getBalance", task.alice, "latest") };
  },

  async send() {
    return confirm(await publish({ to: task.bob, value: "0x5" }));
  },

  async buy() {
    const data = token.encodeFunctionData("buyEmptyTokens", [2]);
    return confirm(await publish({ to: ctt, value: hex(2n * (await read("emptyTokenPrice"))), data }));
  },

  async several() {
    const sent = [];
    for (let count = 0; count < 5; count += 1) sent.push(await publish({ to: task.bob, value: "0x1" }));
    const nonces = sent.map(({ nonce }) => Number(nonce));
    return { nonces, statuses: (await Promise.all(sent.map(confirm))).map(({ status }) => status) };
  },

  async collectible() {
    return {
      isErc721: await read("supportsInterface", "0x80ac58cd"),
      hasMetadata: await read("supportsInterface", "0x5b5e139f"),
      owner: await read("ownerOf", 1),
      name: await read("name"),
      symbol: await read("symbol"),
      uri: (await read("tokenURI", 1)).slice(0, 29),
    };
  },

  async refused() {
    const error = await refusal(() => publish({ to: ctt, data: token.encodeFunctionData("setTokenCapability", [5]) }));
    return error.data;
  },

  async permit() {
    return signTypedData({ privateKey: key, data: task.permit, version: SignTypedDataVersion.V4 });
  },

  async pinned() {
    // A read at the block that the tracker saw last, which may be 20 s old: 60 blocks.
    const past = Math.max(Number(await blockTracker.getLatestBlock()) - 60, 0);
    return BigInt(await ask("eth_getBalance", task.alice, hex(past))) > 0n;
  },
});
