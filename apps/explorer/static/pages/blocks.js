// Blocks, newest first, a page at a time.

import { card, h, replace, row, table, title } from "../dom.js";
import { ago, number, shortHash } from "../format.js";
import { addressLink, blockLink } from "../links.js";
import { batch, call, headOf } from "../rpc.js";
import { namesOf } from "../validators.js";

const SHOWN = 25;
const COLUMNS = ["Block", "Age", "Validator", ">Transactions", ">Gas used", "Hash"];

export default async function blocks(main, from) {
  title("Blocks");
  const newest = Number(await call("eth_blockNumber"));
  const top = from === undefined ? newest : Math.min(Number(from), newest);
  const heights = Array.from({ length: Math.min(SHOWN, top + 1) }, (_, at) => top - at);
  const [names, found] = await Promise.all([
    namesOf(),
    batch(heights.map((height) => ["eth_getBlockByNumber", [`0x${height.toString(16)}`, false]])),
  ]);
  const rows = found
    .filter((block) => block && !(block instanceof Error))
    .map((block) => {
      const head = headOf(block);
      return row(COLUMNS, [
        blockLink(head.height),
        ago(head.timeMs),
        head.height === 0 ? "genesis" : addressLink(head.miner, names.get(head.miner)),
        number(block.transactions.length),
        number(head.gasUsed),
        h("span", { class: "mono", title: head.hash }, shortHash(head.hash)),
      ]);
    });
  replace(
    main,
    h("h1", null, "Blocks"),
    card(
      null,
      table(`Blocks ${number(top)} and below`, COLUMNS, rows),
      h(
        "nav",
        { class: "pages", "aria-label": "More blocks" },
        top < newest ? h("a", { href: `#/blocks/${top + SHOWN}` }, "← Newer") : h("span"),
        top >= SHOWN ? h("a", { href: `#/blocks/${top - SHOWN}` }, "Older →") : h("span"),
      ),
    ),
  );
}
