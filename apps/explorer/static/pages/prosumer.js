// A home: its meter, its tokens, what it produced and consumed, and what the operator would bill.

import { chart, steps } from "../chart.js";
import { card, facts, h, notice, replace, row, table, tag, title } from "../dom.js";
import { originBar } from "../energy.js";
import { kwh, money, number, percent, price, shortHash, time } from "../format.js";
import { addressLink, tokenLink } from "../links.js";
import { call } from "../rpc.js";

const TOKENS_SHOWN = 50;
const DAY_MS = 86400000;
const PAGES_MAX = 20;
const TOKEN_COLUMNS = ["Token", ">Energy", ">Charge", "Offered"];
const CURVE_COLUMNS = ["Until", ">Produced", ">Consumed", ">Covered by tokens"];

export default async function prosumer(main, address) {
  title(`Prosumer ${shortHash(address)}`);
  const home = await call("ctt_prosumer", address);
  if (!home) {
    replace(main, h("h1", { class: "mono" }, address), notice("The chain knows no tokens and no meter of this address."), h("p", null, addressLink(address, "Its account")));
    return undefined;
  }
  const [shelf, meter, market, readings] = await Promise.all([
    call("ctt_tokensOf", address, 0, TOKENS_SHOWN),
    home.meter ? call("ctt_meter", home.meter) : null,
    call("ctt_market").catch(() => null),
    lastDay(address, home),
  ]);
  const curve = readings.length ? dayCurve(readings) : null;
  replace(
    main,
    h("div", { class: "head" }, h("h1", { class: "mono" }, address), tag("ok", "prosumer"), addressLink(address, "account")),
    h(
      "div",
      { class: "cards" },
      card(
        "Energy, ever",
        facts(
          ["Produced", home.everProduced],
          ["of that stored in tokens", `${home.everStored} (${percent(home.everStoredWh, home.everProducedWh)})`],
          ["of that fed to the grid", home.everFedToGrid],
          ["Consumed", home.everConsumed],
          ["of that covered by tokens", `${home.everCovered} (${percent(home.everCoveredWh, home.everConsumedWh)})`],
          ["of that billed", home.everBilled],
          ["Retired, by origin", originBar(home.retired)],
        ),
      ),
      card("Meter", meterFacts(home, meter)),
    ),
    card(curve ? `Its last day, ${number(readings.length)} readings` : "Its last day", curve ? curve.node : h("p", { class: "muted" }, "No readings.")),
    h("div", { class: "cards" }, card(`Tokens (${number(home.tokens.count)})`, tokens(home, shelf)), card("Preview of a bill", preview(home, market))),
  );
  return curve?.stop;
}

// From the last reading back; a page of the answer ends with the block that fills it.
async function lastDay(address, home) {
  const found = [];
  const last = home.lastReading?.timeMs ?? (await call("ctt_chainStatus")).timeMs; // some meters tell no time
  let from = { timeMs: Math.max(0, last - DAY_MS) };
  for (let page = 0; page < PAGES_MAX && from !== null; page++) {
    const answer = await call("ctt_readings", address, from, "latest");
    if (!answer) break;
    found.push(...answer.readings);
    from = answer.next === null ? null : `0x${answer.next.toString(16)}`;
  }
  return found;
}

function dayCurve(readings) {
  const times = [...new Set(readings.map((each) => each.timeMs))].sort((a, b) => a - b);
  const at = new Map(times.map((each, place) => [each, place]));
  const sums = { produced: times.map(() => 0), consumed: times.map(() => 0), covered: times.map(() => 0) };
  for (const each of readings) {
    const place = at.get(each.timeMs);
    if (each.kind === "production") sums.produced[place] += Number(each.measuredWh);
    else {
      sums.consumed[place] += Number(each.measuredWh);
      sums.covered[place] += Number(each.coveredWh);
    }
  }
  const show = (wh) => kwh(Math.round(wh));
  return chart({
    title: "Energy of each reading: produced, consumed, and covered by tokens",
    x: times.map((each) => each / 1000),
    columns: CURVE_COLUMNS,
    showY: show,
    series: [
      { label: "Produced", values: sums.produced, colour: "two", paths: steps, fill: true },
      { label: "Consumed", values: sums.consumed, colour: "one", paths: steps },
      { label: "Covered by tokens", values: sums.covered, colour: "three", paths: steps, fill: true },
    ],
  });
}

function meterFacts(home, meter) {
  if (!home.meter) return h("p", { class: "muted" }, "None: the home only has tokens.");
  return facts(
    ["Address", h("span", null, addressLink(home.meter, home.meter), " ", home.confirmed ? tag("ok", "confirmed") : tag("warn", "waits for the meter's word"))],
    ["Certificate", meter ? (meter.certified ? tag("ok", "certified") : tag("bad", "revoked")) : "–"],
    ["Source", meter?.source ?? "none"],
    ["Last reading", home.lastReading ? time(home.lastReading.timeMs) : "none yet"],
    ["Registers", home.lastReading ? `${home.lastReading.import} drawn, ${home.lastReading.export} fed in` : null],
  );
}

const tokens = (home, shelf) =>
  !shelf?.tokens.length
    ? h("p", { class: "muted" }, "None.")
    : [
        h("p", null, `They hold ${home.stored}, and have room for ${home.spare}.`),
        table("Its tokens", TOKEN_COLUMNS, shelf.tokens.map((each) => row(TOKEN_COLUMNS, [tokenLink(each.tokenId), each.energy, `${each.chargePercent} %`, each.onSale ? tag("warn", each.sellingPrice) : h("span", { class: "muted" }, "no")]))),
        shelf.count > TOKENS_SHOWN ? h("p", { class: "muted" }, `The first ${TOKENS_SHOWN} of ${number(shelf.count)}.`) : null,
      ];

// Energy alone, at the market's tariff; delivery, rent and taxes are the operator's.
function preview(home, market) {
  if (!market) return h("p", { class: "muted" }, "This chain has no tariff.");
  const billed = BigInt(home.everBilledWh) * BigInt(market.ceilingWeiPerWh);
  const fed = BigInt(home.everFedToGridWh) * BigInt(market.floorWeiPerWh);
  return [
    facts(
      ["From the grid", `${home.everBilled} at ${price(market.ceilingWeiPerWh)}: ${money(billed)}`],
      ["Fed to the grid", `${home.everFedToGrid} at ${price(market.floorWeiPerWh)}: −${money(fed)}`],
      ["Energy so far", h("strong", null, money(billed - fed))],
    ),
    h("p", { class: "muted" }, "Since its first reading, at today's tariff, without delivery, rent and taxes. The bill itself is made by “ctt bill”."),
  ];
}
