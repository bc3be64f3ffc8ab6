// One transaction: what it asked for, what came of it, and why not.

import { decodeCall, decodeLog, decodeRevert } from "../abi.js";
import { card, facts, h, notice, replace, row, table, title } from "../dom.js";
import { ago, money, number, shortHash, time } from "../format.js";
import { addressLink, blockLink } from "../links.js";
import { call, onHead, RpcError } from "../rpc.js";
import { argument, inWords, outcome, what, words } from "../transactions.js";

const TYPES = { 0: "legacy", 1: "with access list (EIP-2930)", 2: "EIP-1559", 126: "the block's own" };
const REVERTED = 3; // the code of a call that a rule refuses, and not the node
const ARGUMENT_COLUMNS = ["Name", "Type", "Value"];

export default async function tx(main, hash) {
  title(`Transaction ${shortHash(hash)}`);
  const transaction = await call("eth_getTransactionByHash", hash);
  if (!transaction) {
    replace(main, h("h1", null, "No such transaction"), notice("This node knows no transaction with this hash: it was never sent here, or it was dropped."));
    return undefined;
  }
  const receipt = transaction.blockNumber ? await call("eth_getTransactionReceipt", hash) : null;
  await draw(main, transaction, receipt);
  return receipt ? undefined : await follow(main, hash);
}

// Until it is in a block.
async function follow(main, hash) {
  const stop = onHead(async () => {
    const transaction = await call("eth_getTransactionByHash", hash).catch(() => null);
    if (!transaction?.blockNumber) return;
    stop();
    await draw(main, transaction, await call("eth_getTransactionReceipt", hash));
  });
  return stop;
}

async function draw(main, transaction, receipt) {
  const [called, text, events, reason] = await Promise.all([
    decodeCall(transaction),
    what(transaction),
    Promise.all((receipt?.logs ?? []).map(async (log) => [log, await decodeLog(log)])),
    receipt && Number(receipt.status) === 0 ? refusal(transaction) : null,
  ]);
  const block = receipt && (await call("eth_getBlockByNumber", receipt.blockNumber, false));
  replace(
    main,
    h("div", { class: "head" }, h("h1", null, called ? `${called.module}: ${words(called.name).toLowerCase()}` : text), outcome(receipt)),
    reason ? notice(reason, "bad") : null,
    card(
      "Transaction",
      facts(
        ["Hash", h("span", { class: "mono" }, transaction.hash)],
        ["Block", receipt ? h("span", null, blockLink(receipt.blockNumber), h("span", { class: "muted" }, ` · place ${Number(receipt.transactionIndex)}, final`)) : "it waits in the pool"],
        ["Time", block ? h("span", null, time(block.timestampMilliseconds), h("span", { class: "muted" }, ` · ${ago(block.timestampMilliseconds)}`)) : null],
        ["From", addressLink(transaction.from, transaction.from)],
        ["To", transaction.to ? h("span", null, addressLink(transaction.to, transaction.to), called ? h("span", { class: "muted" }, ` · ${called.module}`) : null) : "nobody"],
        ["Value", money(transaction.value)],
        ["Gas", receipt ? `${number(receipt.gasUsed)} used of ${number(transaction.gas)}` : `${number(transaction.gas)} at most`],
        ["Fee", receipt ? money(BigInt(receipt.gasUsed) * BigInt(receipt.effectiveGasPrice)) : null],
        ["Nonce", number(transaction.nonce)],
        ["Type", TYPES[Number(transaction.type)] ?? Number(transaction.type)],
      ),
    ),
    card(
      called ? `${called.name}(${called.args.map(({ type }) => type).join(", ")})` : "Input",
      called ? values(called) : transaction.input === "0x" ? h("p", { class: "muted" }, "No input: a payment.") : h("pre", { class: "mono" }, transaction.input),
    ),
    card(
      `Events (${number(events.length)})`,
      events.length === 0 ? h("p", { class: "muted" }, receipt ? "None." : "They come with its block.") : h("div", { class: "events" }, kinds(events)),
    ),
  );
}

// What the state before its block says to the same call: mostly the same as then.
async function refusal(transaction) {
  const { from, to, value, input, gas, blockNumber } = transaction;
  try {
    await call("eth_call", { from, to, value, input, gas }, `0x${(BigInt(blockNumber) - 1n).toString(16)}`);
    return "Refused: something before it in its block was in the way.";
  } catch (error) {
    if (!(error instanceof RpcError)) throw error;
    if (error.code !== REVERTED) return `Refused. Asked why, the node says: ${error.message}.`;
    const decoded = await decodeRevert(error.data);
    return `Refused: ${decoded ? inWords(decoded) : error.message}`;
  }
}

const values = ({ module, name, args }) =>
  args.length === 0
    ? h("p", { class: "muted" }, "No arguments.")
    : table(`Arguments of ${name}`, ARGUMENT_COLUMNS, args.map((each) => row(ARGUMENT_COLUMNS, [each.name || "–", h("span", { class: "mono muted" }, each.type), argument(module, each)])));

// A table for each kind of event, as a clearing has many of a few kinds.
function kinds(events) {
  const byKind = Map.groupBy(events, ([log, decoded]) => (decoded ? `${decoded.module} · ${decoded.name}` : `unknown, of ${shortHash(log.address)}`));
  return [...byKind].map(([kind, alike]) =>
    h("section", { class: "event" }, h("h3", null, alike.length > 1 ? `${kind} (${number(alike.length)})` : kind), !alike[0][1] ? alike.map(raw) : alike[0][1].args.length === 1 ? inLine(alike) : inTable(kind, alike)),
  );
}

const inLine = (alike) => h("p", null, alike.map(([, { module, args }], at) => [at ? ", " : null, argument(module, args[0])]));

function inTable(kind, alike) {
  const columns = ["Log", ...alike[0][1].args.map(({ name, type }) => (/^uint/.test(type) && !/tokenId|source|time$/i.test(name) ? `>${name}` : name))];
  return table(kind, columns, alike.map(([log, { module, args }]) => row(columns, [h("span", { class: "muted" }, Number(log.logIndex)), ...args.map((each) => argument(module, each))])));
}

const raw = ([{ topics, data }]) => h("pre", { class: "mono" }, JSON.stringify({ topics, data }, null, 1));
