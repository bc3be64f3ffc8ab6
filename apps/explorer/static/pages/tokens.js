// All tokens, newest first, a page at a time.

import { card, h, replace, row, table, tag, title } from "../dom.js";
import { number } from "../format.js";
import { prosumerLink, tokenLink } from "../links.js";
import { batch, call } from "../rpc.js";

const SHOWN = 25;
const COLUMNS = ["Token", "Owner", ">Energy", ">Charge", "Offered", ">Price of all"];

export default async function tokens(main, from) {
  title("Tokens");
  const supply = await call("ctt_supply");
  const top = from === undefined ? supply.tokens : Math.min(Number(from), supply.tokens);
  const ids = Array.from({ length: Math.min(SHOWN, top) }, (_, at) => top - at);
  const found = await batch(ids.map((id) => ["ctt_token", [id]]));
  replace(
    main,
    h("h1", null, "Tokens"),
    h("p", { class: "muted" }, `${number(supply.tokens)} of at most ${number(supply.maxTokens)}, each for up to ${supply.tokenCapability}; an empty one is ${supply.emptyTokenPrice}.`),
    card(
      null,
      supply.tokens === 0
        ? h("p", { class: "muted" }, "None was bought yet.")
        : table(
            `Token ${number(top)} and below`,
            COLUMNS,
            found
              .filter((token) => token && !(token instanceof Error))
              .map((token) =>
                row(COLUMNS, [
                  tokenLink(token.tokenId),
                  prosumerLink(token.owner),
                  token.energy,
                  `${token.chargePercent} %`,
                  token.onSale ? tag("warn", `${token.tokenPrice} + ${token.energyPrice}`) : h("span", { class: "muted" }, "no"),
                  token.onSale ? token.sellingPrice : "–",
                ]),
              ),
          ),
      h(
        "nav",
        { class: "pages", "aria-label": "More tokens" },
        top < supply.tokens ? h("a", { href: `#/tokens/${top + SHOWN}` }, "← Newer") : h("span"),
        top > SHOWN ? h("a", { href: `#/tokens/${top - SHOWN}` }, "Older →") : h("span"),
      ),
    ),
  );
}
