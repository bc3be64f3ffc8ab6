// A transaction in a line, and in words.

import { decodeCall, words } from "./abi.js";
import { h, row, table, tag } from "./dom.js";
import { kwh, money, number, time } from "./format.js";
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

const ENERGY = /^(energy|offered|stored|produced|consumed|covered|billed|fedToGrid|importTotal|exportTotal|capability)$/i;
const MONEY = /^(price|tokenPrice|sellingPrice|value|amount|fee|cost)$/i;

// An argument as a person reads it; the unit goes by its name, as the ABI has no units.
export function argument({ name, type, value }) {
  if (type === "address") return addressLink(value.toLowerCase(), value);
  if (type === "bool") return value ? "yes" : "no";
  if (/^tokenId$/i.test(name)) return tokenLink(value);
  if (/time$/i.test(name) && type === "uint64") return time(value);
  if (ENERGY.test(name) && type.startsWith("uint")) return `${kwh(value)}`;
  if (MONEY.test(name) && type === "uint256") return h("span", null, number(value), value >= 10n ** 15n ? h("span", { class: "muted" }, ` = ${money(value)}`) : null);
  if (typeof value === "bigint") return number(value);
  if (typeof value === "object" && value !== null) return h("span", { class: "mono" }, show(value));
  return h("span", { class: type.startsWith("bytes") ? "mono" : null }, String(value));
}

const show = (value) =>
  Array.isArray(value) || typeof value === "object" ? `[${Array.from(value, show).join(", ")}]` : String(value);

export const inWords = (decoded) =>
  `${words(decoded.name)}${decoded.args.length ? `: ${decoded.args.map(({ name, value }) => `${name} ${show(value)}`).join(", ")}` : ""}`;

export { words };
