// One block: its header, what made it final, and its transactions.

import { card, facts, h, notice, replace, tag, title } from "../dom.js";
import { ago, number, percent, time } from "../format.js";
import { addressLink, blockLink } from "../links.js";
import { call, headOf } from "../rpc.js";
import { transactionTable } from "../transactions.js";
import { namesOf } from "../validators.js";

const SHOWN = 100;

export default async function block(main, what) {
  const byHash = what.startsWith("0x") && what.length === 66;
  const found = byHash
    ? await call("eth_getBlockByHash", what, true)
    : await call("eth_getBlockByNumber", `0x${BigInt(what).toString(16)}`, true);
  if (!found) {
    title("No such block");
    replace(main, h("h1", null, "No such block"), notice(byHash ? "No final block has this hash." : `Block ${what} is not there yet.`));
    return;
  }
  const head = headOf(found);
  title(`Block ${number(head.height)}`);
  const quantity = `0x${head.height.toString(16)}`;
  const [names, receipts, finality] = await Promise.all([
    namesOf(),
    call("eth_getBlockReceipts", quantity),
    call("ctt_finalityCertificate", quantity).catch(() => null),
  ]);
  const { transactions } = found;
  replace(
    main,
    h(
      "div",
      { class: "head" },
      h("h1", null, `Block ${number(head.height)}`),
      final(head, finality),
      h("nav", { class: "pages", "aria-label": "Blocks beside it" }, head.height > 0 ? h("a", { href: `#/block/${head.height - 1}` }, "← before") : null, h("a", { href: `#/block/${head.height + 1}` }, "after →")),
    ),
    card("Header", header(head, found, names)),
    card("What made it final", certificate(finality, names)),
    card(
      `Transactions (${number(transactions.length)})`,
      transactions.length === 0
        ? h("p", { class: "muted" }, "None.")
        : await transactionTable("Transactions of this block", transactions.slice(0, SHOWN), receipts),
      transactions.length > SHOWN ? h("p", { class: "muted" }, `The first ${SHOWN} of ${number(transactions.length)}.`) : null,
    ),
  );
}

// A node shows final blocks only; genesis needs no votes.
const final = (head, finality) => (head.height === 0 || finality?.certificate ? tag("ok", "final") : tag("", "final"));

function header(head, found, names) {
  return facts(
    ["Time", h("span", null, time(head.timeMs), h("span", { class: "muted" }, ` · ${ago(head.timeMs)}`))],
    ["Validator", head.height === 0 ? "genesis" : addressLink(head.miner, names.get(head.miner) ?? head.miner)],
    ["View", number(head.view)],
    ["Gas used", `${number(head.gasUsed)} of ${number(head.gasLimit)} (${percent(head.gasUsed, head.gasLimit)})`],
    ["Size", `${number(found.size)} bytes`],
    ["Hash", mono(found.hash)],
    ["Parent", head.height > 0 ? h("a", { href: `#/block/${head.height - 1}`, class: "mono" }, found.parentHash) : mono(found.parentHash)],
    ["State root", mono(found.stateRoot)],
    ["Transactions root", mono(found.transactionsRoot)],
    ["Receipts root", mono(found.receiptsRoot)],
  );
}

const mono = (text) => h("span", { class: "mono" }, text);

function certificate(finality, names) {
  if (!finality?.certificate) return h("p", { class: "muted" }, "Its certificate is not kept here, or not made yet: a block becomes final with its next certified descendant.");
  return facts(
    ["Certificate", finality.certifiedHeight === finality.height ? "of this very block" : h("span", null, "of its descendant ", blockLink(finality.certifiedHeight))],
    ["Epoch", number(finality.epoch)],
    ["Signed by", finality.signers ? h("span", null, finality.signers.map((each, at) => [at ? ", " : null, addressLink(each, names.get(each))])) : "a set of validators that is not kept here"],
  );
}
