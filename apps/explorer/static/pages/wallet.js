// A wallet of the browser: connect it, see what its account has, and trade with it.

import { card, facts, h, notice, replace, row, table, tag, title } from "../dom.js";
import { deal, wei, weiPerWh, wh, whole } from "../deal.js";
import { kwh, money, number, price } from "../format.js";
import { addressLink, prosumerLink, tokenLink } from "../links.js";
import { batch, call, live } from "../rpc.js";
import { connect, onWallet, send, wallet, wallets } from "../wallet.js";

const TOKENS_AT_ONCE_MAX = 100;
const TOKENS_SHOWN = 20;
const AUCTIONS_AHEAD = 20n; // that an order stands
const EVERY_MS = 1000;
const TOKEN_COLUMNS = ["Token", ">Energy", "Offered", "Withdraw"];
const ORDER_COLUMNS = ["Order", "Side", ">Energy", ">Limit", "Cancel"];

export default async function page(main) {
  title("Wallet");
  const place = { who: h("div"), account: h("div"), deals: h("div", { class: "cards" }) };
  replace(main, h("h1", null, "Wallet"), card("Connection", place.who), place.account, place.deals);
  const supply = await call("ctt_supply");
  const market = await call("ctt_market").catch(() => null);
  const look = async () => {
    if (wallet()) await drawAccount(place.account, look).catch(() => {});
  };
  const draw = () => {
    drawConnection(place.who);
    replace(place.account);
    replace(place.deals, wallet() ? deals(supply, market) : null);
    look();
  };
  draw();
  const stops = [onWallet(draw), live(look, EVERY_MS)];
  return () => stops.forEach((stop) => stop());
}

function drawConnection(place) {
  if (wallet()) {
    replace(place, h("p", null, tag("ok", "connected"), ` ${wallet().name}, account `, addressLink(wallet().account, wallet().account)));
    return;
  }
  const offered = wallets();
  const told = h("p", { role: "status" });
  const buttons = offered.map((each) =>
    h(
      "button",
      {
        type: "button",
        class: "main",
        onclick: async () => {
          replace(told, "confirm it in the wallet…");
          await connect(each).catch((error) => replace(told, error.message));
        },
      },
      `Connect ${each.name}`,
    ),
  );
  replace(place, offered.length ? [h("div", { class: "row" }, buttons), told] : notice("This browser has no wallet. Any Ethereum wallet that is an extension will do, such as MetaMask."));
}

async function drawAccount(place, again) {
  const { account } = wallet();
  const [balance, shelf, orders] = await batch([
    ["eth_getBalance", [account, "latest"]],
    ["ctt_tokensOf", [account, 0, TOKENS_SHOWN]],
    ["ctt_ordersOf", [account]],
  ]);
  if (balance instanceof Error) throw balance;
  if (place.contains(document.activeElement) && document.activeElement !== document.body) return; // somebody is at it
  const tokens = shelf instanceof Error || !shelf ? [] : shelf.tokens;
  const open = orders instanceof Error || !orders ? [] : [orders.bid, orders.ask].filter((each) => each);
  replace(
    place,
    h(
      "div",
      { class: "cards" },
      card("Account", facts(["Balance", money(balance)], ["Tokens", tokens.length ? number(shelf.count) : "none"], ["Its page", prosumerLink(account, "energy and tokens")])),
      card("Its orders", open.length ? table("Its orders", ORDER_COLUMNS, open.map((each) => row(ORDER_COLUMNS, [number(each.orderId), each.side, each.energy, price(each.limitWeiPerWh), act("Cancel", { module: "Market", signature: "cancel(uint256)", args: [each.orderId] }, again)]))) : h("p", { class: "muted" }, "None stand in the book.")),
      tokens.length ? card("Its tokens", table("Its tokens", TOKEN_COLUMNS, tokens.map((each) => row(TOKEN_COLUMNS, [tokenLink(each.tokenId), each.energy, each.onSale ? tag("warn", each.sellingPrice) : h("span", { class: "muted" }, "no"), each.onSale ? act("Withdraw", { module: "CTT", signature: "cancelSale(uint256)", args: [each.tokenId] }, again) : "–"])))) : null,
    ),
  );
}

// A button that sends at once.
function act(name, what, again) {
  const button = h("button", { type: "button" }, name);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await send({ ...what, tell: (text) => (button.title = text) });
      button.blur();
      await again();
    } catch (error) {
      button.disabled = false;
      button.after(h("p", { class: "notice bad" }, error.message));
    }
  });
  return button;
}

function deals(supply, market) {
  const each = BigInt(supply.emptyTokenPriceWei);
  const expiry = async () => BigInt((await call("ctt_market")).auction) + AUCTIONS_AHEAD;
  const order = (signature) => async ({ energy, limit }) => ({ module: "Market", signature, args: [wh(energy), weiPerWh(limit), await expiry()] });
  const sum = ({ energy, limit }, fee) => wh(energy) * (weiPerWh(limit) + fee);
  return [
    card(
      "Buy empty tokens",
      deal({
        name: "Buy",
        fields: [["count", "How many", "1"]],
        prepare: ({ count }) => ({ module: "CTT", signature: "buyEmptyTokens(uint256)", args: [whole(count, TOKENS_AT_ONCE_MAX)], value: whole(count, TOKENS_AT_ONCE_MAX) * each }),
        cost: ({ count }) => (count ? `costs ${money(whole(count, TOKENS_AT_ONCE_MAX) * each)}, room for ${kwh(whole(count, TOKENS_AT_ONCE_MAX) * BigInt(supply.tokenCapabilityWh))}` : `${money(each)} each`),
      }),
    ),
    card(
      "Offer a token",
      deal({
        name: "Offer",
        fields: [["id", "Token", "17"], ["token", "For the token", "0.01"], ["energy", "Per kWh in it", "0.10"]],
        prepare: ({ id, token, energy }) => ({ module: "CTT", signature: "setOnSale(uint256,uint256,uint256)", args: [whole(id, 999999999), wei(token), weiPerWh(energy)] }),
      }),
    ),
    market
      ? card(
          "Bid in the auction",
          deal({
            name: "Bid",
            fields: [["energy", "kWh", "2.5"], ["limit", "At most, per kWh", "0.20"]],
            prepare: order("bid(uint256,uint256,uint64)"),
            cost: (values) => (values.energy && values.limit ? `${money(sum(values, BigInt(market.gridFeeWeiPerWh)))} at most, the grid fee included` : ""),
          }),
        )
      : null,
    market
      ? card(
          "Ask in the auction",
          deal({
            name: "Ask",
            fields: [["energy", "kWh", "2.5"], ["limit", "At least, per kWh", "0.12"]],
            prepare: order("ask(uint256,uint256,uint64)"),
            cost: (values) => (values.energy && values.limit ? `brings ${money(sum(values, 0n))} at least` : ""),
          }),
        )
      : null,
  ];
}
