// A wallet that the browser has (EIP-6963, EIP-1193): which ones there are, the one in use, and what is sent with it.
// Keys never come here: the wallet asks its owner and signs.

import { contract, decodeRevert } from "./abi.js";
import { call, onHead, RpcError } from "./rpc.js";
import { inWords } from "./transactions.js";

const FOLLOW_MS_MAX = 60000;
const UNKNOWN_CHAIN = 4902;
const REJECTED = 4001;

const found = new Map(); // by the provider's uuid: {name, provider}
const watchers = new Set();
let used = null; // {name, provider, account}

addEventListener("eip6963:announceProvider", ({ detail: { info, provider } }) => {
  found.set(info.uuid, { name: info.name, provider });
  tellAll();
});
dispatchEvent(new Event("eip6963:requestProvider"));

export function wallets() {
  if (found.size === 0 && window.ethereum) return [{ name: "the browser's wallet", provider: window.ethereum }];
  return [...found.values()];
}

export const wallet = () => used;

// Calls the watcher when a wallet appears, is connected or shows another account.
export function onWallet(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

function tellAll() {
  for (const watcher of watchers) watcher();
}

// Throws Error, in words.
export async function connect({ name, provider }) {
  const [account] = await asked(provider, "eth_requestAccounts");
  if (!account) throw new Error(`${name} shows no account.`);
  await useChain(provider);
  used = { name, provider, account: account.toLowerCase() };
  provider.on?.("accountsChanged", ([next]) => {
    used = next ? { ...used, account: next.toLowerCase() } : null;
    tellAll();
  });
  tellAll();
}

async function useChain(provider) {
  const chainId = await call("eth_chainId");
  if (BigInt(await asked(provider, "eth_chainId")) === BigInt(chainId)) return;
  try {
    await provider.request({ method: "wallet_switchEthereumChain", params: [{ chainId }] });
  } catch (error) {
    if (error.code !== UNKNOWN_CHAIN) throw said(error);
    await asked(provider, "wallet_addEthereumChain", {
      chainId,
      chainName: "Crypto-Trading Token",
      rpcUrls: [`${location.origin}/`],
      nativeCurrency: { name: "Settlement currency", symbol: "CUR", decimals: 18 },
    });
  }
}

async function asked(provider, method, ...params) {
  try {
    return await provider.request({ method, params });
  } catch (error) {
    throw said(error);
  }
}

const said = (error) => new Error(error.code === REJECTED ? "You rejected it in the wallet." : `The wallet refuses: ${error.message}`);

// Calls a module's function with the wallet in use, and gives the receipt once it is final. What the chain would refuse
// is said before the wallet asks. `tell` hears how far it has come. Throws Error, in words.
export async function send({ module, signature, args, value = 0n, tell = () => {} }) {
  const { provider, account } = used;
  const { address, abi } = await contract(module);
  const request = { from: account, to: address, data: abi.encodeFunctionData(signature, args), value: `0x${value.toString(16)}` };
  tell("looking what the chain would say…");
  try {
    await call("eth_call", request, "latest");
  } catch (error) {
    throw await inPlainWords(error);
  }
  const gas = BigInt(await call("eth_estimateGas", request));
  await useChain(provider);
  tell("confirm it in the wallet…");
  const hash = await asked(provider, "eth_sendTransaction", { ...request, gas: `0x${gas.toString(16)}` });
  tell("sent; waiting for its block…");
  const receipt = await follow(hash);
  if (Number(receipt.status) !== 1) throw new Error("The chain refused it: see its transaction.");
  return receipt;
}

async function inPlainWords(error) {
  if (!(error instanceof RpcError)) return error;
  const decoded = await decodeRevert(error.data);
  return new Error(decoded ? `The chain would refuse it: ${inWords(decoded)}.` : `The chain would refuse it: ${error.message}.`);
}

function follow(hash) {
  return new Promise((done, failed) => {
    const end = (settle, value) => {
      stop();
      clearTimeout(timer);
      settle(value);
    };
    const timer = setTimeout(() => end(failed, new Error(`It is in no block after ${FOLLOW_MS_MAX / 1000} s. It may still come: ${hash}`)), FOLLOW_MS_MAX);
    const look = async () => {
      const receipt = await call("eth_getTransactionReceipt", hash).catch(() => null);
      if (receipt) end(done, receipt);
    };
    const stop = onHead(look);
  });
}
