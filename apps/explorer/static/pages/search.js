// From what somebody typed to its page: a height, a hash, an address, a token or a validator's name.

import { card, h, replace, title } from "../dom.js";
import { addressLink, tokenLink } from "../links.js";
import { batch, call } from "../rpc.js";
import { namesOf } from "../validators.js";

export default async function search(main, typed) {
  title(`Search: ${typed}`);
  const what = typed.trim();
  const found = /^0x[0-9a-f]{64}$/i.test(what)
    ? await ofHash(what.toLowerCase())
    : /^0x[0-9a-f]{40}$/i.test(what)
      ? await ofAddress(what.toLowerCase())
      : /^[\d,. ]{1,20}$/.test(what)
        ? await ofNumber(main, BigInt(what.replace(/\D/g, "")))
        : /^(ctt|token|#)\s*#?\d{1,18}$/i.test(what)
          ? `token/${what.replace(/\D/g, "")}`
          : await ofName(main, what);
  if (found) location.replace(`#/${found}`);
  else if (!main.firstChild) nothing(main, what);
}

function nothing(main, what) {
  replace(
    main,
    h("h1", null, `Nothing found for “${what.slice(0, 80)}”`),
    card(
      "What can be found",
      h(
        "ul",
        null,
        [
          "a block by its number or its hash",
          "a transaction by its hash",
          "an account, prosumer or meter by its address: 0x and 40 hexadecimal digits",
          "a token by its number: CTT 17",
          "a validator by its name",
        ].map((each) => h("li", null, each)),
      ),
    ),
  );
}

async function ofHash(hash) {
  const [transaction, block] = await batch([
    ["eth_getTransactionByHash", [hash]],
    ["eth_getBlockByHash", [hash, false]],
  ]);
  if (block && !(block instanceof Error)) return `block/${Number(block.number)}`;
  return transaction && !(transaction instanceof Error) ? `tx/${hash}` : null;
}

async function ofAddress(address) {
  const meter = await call("ctt_meter", address);
  const prosumer = await call("ctt_prosumer", address);
  return prosumer && !meter ? `prosumer/${address}` : `account/${address}`;
}

// A number may be a block and a token: then both are offered.
async function ofNumber(main, number) {
  const [newest, token] = await batch([["eth_blockNumber"], ["ctt_token", [Number(number)]]]);
  const isBlock = number <= BigInt(newest);
  const isToken = token && !(token instanceof Error);
  if (isBlock && isToken) {
    replace(
      main,
      h("h1", null, `Found for ${number}`),
      card("A block and a token have this number", h("ul", null, h("li", null, h("a", { href: `#/block/${number}` }, `Block ${number}`)), h("li", null, tokenLink(number), `, ${token.energy}, of `, addressLink(token.owner)))),
    );
    return null;
  }
  return isBlock ? `block/${number}` : isToken ? `token/${number}` : null;
}

async function ofName(main, name) {
  const names = [...(await namesOf())].filter(([, each]) => each.toLowerCase().includes(name.toLowerCase()));
  if (names.length > 1) {
    replace(main, h("h1", null, `Validators named like “${name.slice(0, 80)}”`), card(null, h("ul", null, names.map(([address, each]) => h("li", null, addressLink(address, each))))));
    return null;
  }
  return names.length ? `account/${names[0][0]}` : null;
}
