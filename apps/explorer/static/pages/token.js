// One token: how full it is, whose, of what origin, at what price, and what happened to it lately.

import { contract, decodeLog, words } from "../abi.js";
import { card, facts, h, notice, replace, row, table, tag, title } from "../dom.js";
import { deal } from "../deal.js";
import { battery, originBar } from "../energy.js";
import { money, number } from "../format.js";
import { addressLink, blockLink, prosumerLink, txLink } from "../links.js";
import { call, live } from "../rpc.js";

const BLOCKS_LOOKED_AT = 1000; // what a node looks through for one request; all of it is in the index
const EVERY_MS = 2000; // its history is 40 units
const SHOWN = 50;
const CHARGED_MEANWHILE_WH = 500n;
const COLUMNS = ["Block", "What", "From", "To", ">Price", "Transaction"];

export default async function token(main, id) {
  title(`CTT ${number(id)}`);
  let drawn = "";
  const draw = async () => {
    const found = await call("ctt_token", Number(id));
    const { height, ...rest } = found ?? {};
    const now = JSON.stringify(rest);
    if (drawn && (now === drawn || main.querySelector(".deal button:disabled"))) return; // or it is being bought
    drawn = now;
    if (!found) {
      replace(main, h("h1", null, "No such token"), notice(`There is no token ${number(id)}: it was not bought yet.`));
      return;
    }
    await show(main, found, await history(id, height));
  };
  await draw();
  return live(draw, EVERY_MS);
}

async function history(id, height) {
  const ctt = await contract("CTT");
  const topic = `0x${BigInt(id).toString(16).padStart(64, "0")}`;
  const signatures = (...names) => names.map((name) => ctt.abi.getEvent(name).topicHash);
  const range = { address: ctt.address, fromBlock: `0x${Math.max(0, height - BLOCKS_LOOKED_AT + 1).toString(16)}`, toBlock: `0x${height.toString(16)}` };
  const [first, third] = await Promise.all([
    call("eth_getLogs", { ...range, topics: [signatures("TokenOnSale", "SaleCancelled", "TokenSold"), topic] }),
    call("eth_getLogs", { ...range, topics: [signatures("Transfer", "EnergyTransferred"), null, null, topic] }),
  ]);
  const logs = [...first, ...third].sort((a, b) => Number(b.blockNumber) - Number(a.blockNumber) || Number(b.logIndex) - Number(a.logIndex));
  return Promise.all(logs.slice(0, SHOWN).map(async (log) => [log, await decodeLog(log)]));
}

async function show(main, token, events) {
  replace(
    main,
    h("div", { class: "head" }, h("h1", null, `CTT ${number(token.tokenId)}`), token.onSale ? tag("warn", `on sale for ${token.sellingPrice}`) : tag("", "not on sale")),
    h(
      "div",
      { class: "cards" },
      card("Charge", h("div", { class: "charged" }, battery(token.chargePercent, `${token.energy}, ${token.chargePercent} % of what it can hold`), h("div", null, h("div", { class: "value" }, token.energy), originBar(token.origin)))),
      card(
        "Token",
        facts(
          ["Owner", prosumerLink(token.owner, token.owner)],
          ["Offered at", token.onSale ? `${token.tokenPrice} for the token + ${token.energyPrice} for its energy` : null],
          ["That is", token.onSale ? `${token.sellingPrice}, with the energy that it holds now` : null],
          ["May be moved by", token.approved ? addressLink(token.approved, token.approved) : "its owner alone"],
          ["Place on the shelf", number(token.index)],
        ),
        token.onSale ? purchase(token) : null,
      ),
    ),
    card(
      "What happened to it",
      events.length
        ? table("Newest events of this token", COLUMNS, events.map(event))
        : h("p", { class: "muted" }, `Nothing in the last ${number(BLOCKS_LOOKED_AT)} blocks but charging, which moves no token.`),
    ),
  );
}

// With what it holds now, at least; it may be charged meanwhile, so a little more is sent, and what is too much comes back.
function purchase(token) {
  const margin = BigInt(token.energyPriceWeiPerWh) * CHARGED_MEANWHILE_WH;
  return deal({
    name: `Buy for ${token.sellingPrice}`,
    cost: () => `with ${token.energy}`,
    prepare: () => ({
      module: "CTT",
      signature: "buyToken(uint256,uint256)",
      args: [token.tokenId, token.energyWh],
      value: BigInt(token.sellingPriceWei) + margin,
    }),
  });
}

function event([log, decoded]) {
  const args = Object.fromEntries((decoded?.args ?? []).map(({ name, value }) => [name, value]));
  const from = args.from ?? args.seller ?? args.owner;
  const to = args.to ?? args.buyer;
  const isBirth = decoded?.name === "Transfer" && /^0x0{40}$/.test(from);
  return row(COLUMNS, [
    blockLink(log.blockNumber),
    isBirth ? "Bought empty or full, for the first time" : words(decoded?.name ?? "unknown"),
    from && !isBirth ? addressLink(from.toLowerCase()) : "–",
    to ? addressLink(to.toLowerCase()) : "–",
    args.price !== undefined ? money(args.price) : args.tokenPrice !== undefined ? `${money(args.tokenPrice)} + energy` : "–",
    txLink(log.transactionHash),
  ]);
}
