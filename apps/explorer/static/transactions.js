// A transaction in a line, and in words.

import { decodeCall, words } from "./abi.js";
import { h, row, table, tag } from "./dom.js";
import { kwh, money, number, price, time } from "./format.js";
import { addressLink, tokenLink, txLink } from "./links.js";

const COLUMNS = ["Transaction", "What", "From", ">Gas used", "Outcome"];

export const outcome = (receipt) =>
  receipt === undefined || receipt === null
    ? tag("", "not yet in a block")
    : Number(receipt.status) === 1
      ? tag("ok", "done")
      : tag("bad", "refused");

export async function what(transaction) {
  if (Number(transaction.type) === 0x7e) return "clears the market";
  const decoded = await decodeCall(transaction);
  if (decoded) return decoded.name;
  return BigInt(transaction.value) > 0n ? `pays ${money(transaction.value)}` : "calls nothing known";
}

export async function transactionTable(caption, transactions, receipts) {
  const texts = await Promise.all(transactions.map(what));
  return table(
    caption,
    COLUMNS,
    transactions.map((each, at) =>
      row(COLUMNS, [
        txLink(each.hash),
        texts[at],
        addressLink(each.from),
        receipts[at] ? number(receipts[at].gasUsed) : "–",
        outcome(receipts[at]),
      ]),
    ),
  );
}

const SOURCES = ["none", "solar", "wind", "hydro", "biomass", "other"];

// The ABI has no units: what the figures of a module's calls and events stand for goes by their names.
const UNITS = {
  CTT: [
    [/^(energy|amount|maxAmount|minEnergy|offered|stored|requested|covered|importTotal|exportTotal|capability)$/, kwh],
    [/^(price|tokenPrice)$/, money],
    [/^energyPrice$/, price],
  ],
  Market: [
    [/^(energy|energyWh)$/, kwh],
    [/^(price|weiPerWh|buyLimit|sellLimit|floor|ceiling|gridFee)$/, price],
    [/^(spend|spendWei)$/, money],
  ],
  Treasury: [[/^amount$/, money]],
};

// An argument as a person reads it.
export function argument(module, { name, type, value }) {
  if (type === "address") return addressLink(value.toLowerCase(), value);
  if (type === "bool") return value ? "yes" : "no";
  if (/tokenId$/i.test(name)) return tokenLink(value);
  if (/time$/i.test(name) && type === "uint64") return time(value);
  if (name === "source") return SOURCES[Number(value)] ?? number(value);
  if (typeof value === "bigint") return (UNITS[module]?.find(([names]) => names.test(name))?.[1] ?? number)(value);
  if (typeof value === "object" && value !== null) return h("span", { class: "mono" }, show(value));
  return h("span", { class: type.startsWith("bytes") ? "mono" : null }, String(value));
}

const show = (value) =>
  Array.isArray(value) || typeof value === "object" ? `[${Array.from(value, show).join(", ")}]` : String(value);

export const inWords = (decoded) =>
  `${words(decoded.name)}${decoded.args.length ? `: ${decoded.args.map(({ name, value }) => `${name} ${show(value)}`).join(", ")}` : ""}`;

export { words };
