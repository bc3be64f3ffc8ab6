// The auction that takes orders now, what it would come to, and those that were.

import { chart, steps } from "../chart.js";
import { card, facts, h, notice, replace, row, table, title } from "../dom.js";
import { kwh, number, price } from "../format.js";
import { blockLink, prosumerLink } from "../links.js";
import { batch, call, live } from "../rpc.js";

const EVERY_MS = 2000; // book and clearing are 41 units
const ORDERS_SHOWN = 100;
const LISTED = 15;
const AUCTIONS_SHOWN = 100;
const NEWEST = 2n ** 63n;
const ORDER_COLUMNS = ["Order", "Owner", ">Energy", ">Limit"];
const AUCTION_COLUMNS = ["Auction", "Cleared in", ">Price", ">Energy", ">Bids", ">Asks"];

export default async function market(main) {
  title("Market");
  const place = { now: h("div"), curves: h("div"), bids: h("div"), asks: h("div"), prices: h("div"), auctions: h("div") };
  const charts = { curves: null, prices: null };
  let known = "";
  const draw = async () => {
    const [tariff, book, clearing] = await batch([["ctt_market"], ["ctt_orderBook", [0, ORDERS_SHOWN]], ["ctt_clearing"]]);
    if (tariff instanceof Error) throw tariff;
    if (book instanceof Error) throw book;
    if (!tariff) {
      replace(main, h("h1", null, "Market"), notice("This chain has no market: its genesis document describes none."));
      return;
    }
    const result = clearing instanceof Error ? null : clearing;
    replace(place.now, now(tariff, book, result));
    const state = JSON.stringify([book.bids, book.asks, result?.priceWeiPerWh]);
    if (state !== known) {
      known = state;
      charts.curves?.stop();
      charts.curves = curves(book, result);
      replace(place.curves, charts.curves?.node ?? h("p", { class: "muted" }, "No orders stand in the book."));
      replace(place.bids, list("Bids", book.bids, book.bidCount));
      replace(place.asks, list("Asks", book.asks, book.askCount));
    }
    if (place.auctions.dataset.auction !== String(tariff.auction)) {
      place.auctions.dataset.auction = tariff.auction;
      const past = (await call("ctt_auctions", `0x${NEWEST.toString(16)}`, AUCTIONS_SHOWN)).auctions.filter((each) => each.bids || each.asks);
      charts.prices?.stop();
      charts.prices = past.length > 1 ? history(past) : null;
      replace(place.prices, charts.prices?.node ?? h("p", { class: "muted" }, "Too few auctions yet."));
      replace(place.auctions, past.length ? table("Auctions, newest first", AUCTION_COLUMNS, past.slice(0, LISTED).map(auction)) : h("p", { class: "muted" }, "None has cleared yet."));
    }
  };
  replace(
    main,
    h("h1", null, "Market"),
    card("The auction now", place.now),
    card("Supply and demand", place.curves),
    h("div", { class: "cards" }, card("Bids", place.bids), card("Asks", place.asks)),
    card("Prices of the last auctions", place.prices),
    card("Auctions", place.auctions),
  );
  await draw();
  const stop = live(draw, EVERY_MS);
  return () => {
    stop();
    charts.curves?.stop();
    charts.prices?.stop();
  };
}

const now = (tariff, orders, result) =>
  facts(
    ["Auction", h("span", null, number(tariff.auction), h("span", { class: "muted" }, ` · takes orders until block ${number(tariff.lastBlock)}, ${tariff.blocksLeft} to go`))],
    ["It would clear at", result && BigInt(result.energyWh) > 0n ? `${price(result.priceWeiPerWh)}: ${result.energy} in ${number(result.tradeCount)} trades` : "nothing: no bid meets an ask"],
    ["Orders", `${number(orders.bidCount)} bids, ${number(orders.askCount)} asks; at most ${number(tariff.ordersMax)}`],
    ["Feed-in and retail price", `${tariff.floor} and ${tariff.ceiling}`],
    ["Grid fee, paid by the buyer", tariff.gridFee],
  );

// Bids from the highest limit down, asks from the lowest up: energy over the price.
function curves({ bids, asks }, result) {
  if (!bids.length && !asks.length) return null;
  const demand = stairs([...bids].sort((a, b) => compare(b, a)));
  const supply = stairs([...asks].sort(compare));
  const x = [...new Set([0, ...demand.map(([at]) => at), ...supply.map(([at]) => at)])].sort((a, b) => a - b);
  const along = (stair) => x.map((at) => stair.find(([end]) => at < end)?.[1] ?? null);
  const series = [
    { label: "Demand", values: along(demand), colour: "one", paths: steps },
    { label: "Supply", values: along(supply), colour: "two", paths: steps },
  ];
  if (result && BigInt(result.energyWh) > 0n) series.push({ label: "Price", values: x.map(() => Number(result.priceWeiPerWh) / 1e15), colour: "three" });
  return chart({
    title: "Supply and demand: the limits of all bids and asks over the energy they come to",
    x,
    isTime: false,
    showX: (wh) => kwh(Math.round(wh)),
    showY: (units) => units.toFixed(3),
    series,
    columns: ["Energy from", ...series.map(({ label }) => `>${label}`)],
  });
}

const compare = (a, b) => Number(BigInt(a.limitWeiPerWh) - BigInt(b.limitWeiPerWh));

// [where it ends in Wh, its limit in units a kWh] of each order.
function stairs(orders) {
  let end = 0;
  return orders.map(({ energyWh, limitWeiPerWh }) => [(end += Number(energyWh)), Number(limitWeiPerWh) / 1e15]);
}

const list = (name, orders, count) =>
  orders.length
    ? [
        table(`${name}, best first`, ORDER_COLUMNS, orders.slice(0, LISTED).map((each) => row(ORDER_COLUMNS, [number(each.orderId), prosumerLink(each.owner), each.energy, price(each.limitWeiPerWh)]))),
        count > LISTED ? h("p", { class: "muted" }, `The first ${LISTED} of ${number(count)}.`) : null,
      ]
    : h("p", { class: "muted" }, "None.");

const auction = (each) =>
  row(AUCTION_COLUMNS, [number(each.auction), blockLink(each.clearedIn), BigInt(each.energyWh) > 0n ? price(each.priceWeiPerWh) : "–", each.energy, number(each.bids), number(each.asks)]);

function history(past) {
  const inOrder = [...past].reverse();
  return chart({
    title: "Price and energy of the last auctions",
    x: inOrder.map((each) => each.auction),
    isTime: false,
    showX: (at) => `no. ${number(Math.round(at))}`,
    showY: (units) => units.toFixed(3),
    series: [{ label: "Price per kWh", values: inOrder.map((each) => (BigInt(each.energyWh) > 0n ? Number(each.priceWeiPerWh) / 1e15 : null)), colour: "one" }],
    columns: ["Auction", ">Price per kWh"],
  });
}
