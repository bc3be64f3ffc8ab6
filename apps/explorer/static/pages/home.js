// The live chain: blocks as they become final, how fast and how soon, who makes them, and what is in them.

import { card, h, refresh, replace, row, svg, table, tag, title } from "../dom.js";
import { ago, clock, number } from "../format.js";
import { addressLink, blockLink, txLink } from "../links.js";
import { batch, call, headOf, onHead } from "../rpc.js";
import { heard, missed, presence } from "../validators.js";

const BLOCKS_SHOWN = 12;
const BLOCKS_KEPT = 90; // from which rates are taken
const TRANSACTIONS_SHOWN = 12;
const HIGHEST_PERIODS = 3; // of a bar
const LATE_PERIODS = 1.5; // an interval that is no longer one period
const STATUS_EVERY_MS = 2000;
const AGES_EVERY_MS = 1000;
const TRANSACTIONS_EVERY_MS = 1000; // each of them is a call, and a client has 50 units a second

const BLOCK_COLUMNS = ["Block", "Time", "Validator", ">Transactions", ">Gas"];
const TRANSACTION_COLUMNS = ["Transaction", "What", "From", ">Block"];
const VALIDATOR_COLUMNS = ["Validator", "State", ">Heard", ">Votes missed", ">Blocks in the last 90"];

export default async function home(main) {
  title("Chain");
  const place = layout(main);
  const chain = { heads: [], counts: new Map(), names: new Map(), order: [], epoch: 0, periodMs: 0, transactions: [], nextReadMs: 0, heardMs: performance.now(), stalledSince: null, isReading: false, isCatchingUp: false };
  await Promise.all([readStatus(place, chain), readRecent(chain)]);
  drawBlocks(place, chain);
  drawValidators(place, chain);
  const timers = [
    setInterval(() => readStatus(place, chain).catch(() => {}), STATUS_EVERY_MS),
    setInterval(() => {
      drawAges(place);
      drawRates(place, chain);
      readContent(place, chain).catch(() => {});
    }, AGES_EVERY_MS),
  ];
  const stopHeads = onHead((head) => {
    const next = chain.heads.length ? chain.heads[0].height + 1 : head.height;
    if (head.height < next) return;
    if (head.height > next) {
      catchUp(chain).catch(() => {});
      return;
    }
    chain.heads.unshift(head);
    chain.heardMs = performance.now();
    chain.heads.length = Math.min(chain.heads.length, BLOCKS_KEPT);
    drawBlocks(place, chain);
    drawValidators(place, chain);
    readContent(place, chain).catch(() => {});
  });
  readContent(place, chain).catch(() => {});
  return () => {
    stopHeads();
    timers.forEach(clearInterval);
  };
}

// --- what is read --------------------------------------------------------------------------------------------------

async function readStatus(place, chain) {
  const [status, node, validators] = await batch([["ctt_chainStatus"], ["ctt_nodeStatus"], ["ctt_validators", ["latest"]]]);
  if (status instanceof Error) throw status;
  chain.epoch = status.epoch;
  chain.periodMs = status.blockPeriodMs;
  chain.stalledSince = status.finality === "stalled" ? status.since : null;
  chain.order = validators instanceof Error ? [] : validators.validators.map((each) => each.address);
  chain.states = node instanceof Error ? [] : node.validators;
  for (const each of chain.states) chain.names.set(each.address, each.name);
  const finality = node instanceof Error ? null : node.finalityMs;
  tell(place.finality, finality && finality.blocks ? `${Math.round(finality.p50)} ms` : "–", finality && finality.blocks ? `from proposal to certificate; 99 % within ${Math.round(finality.p99)} ms` : "no block in the last minute");
  tell(place.pool, number(status.pool.pending), status.pool.queued ? `and ${number(status.pool.queued)} that wait for another` : "transactions wait");
  if (status.ctt) {
    tell(place.energy, status.ctt.energyStored.replace(" kWh", ""), `in ${number(status.ctt.tokens)} of ${number(status.ctt.maxTokens)} tokens`);
  }
  drawValidators(place, chain);
}

// After heads that were not heard of: a gap is no late block.
async function catchUp(chain) {
  if (chain.isCatchingUp) return;
  chain.isCatchingUp = true;
  try {
    await readRecent(chain);
  } finally {
    chain.isCatchingUp = false;
  }
}

// The last heads, so that rates are there from the start.
async function readRecent(chain) {
  const heads = [];
  const newest = await call("eth_getBlockByNumber", "latest", false);
  const height = Number(newest.number);
  const first = Math.max(1, height - BLOCKS_KEPT + 1);
  const asked = [];
  for (let at = height; at >= first; at--) asked.push(["eth_getBlockByNumber", [`0x${at.toString(16)}`, false]]);
  for (const block of await batch(asked)) {
    if (block instanceof Error || !block) continue;
    heads.push(headOf(block));
    chain.counts.set(Number(block.number), block.transactions.length);
  }
  chain.heads = heads;
  chain.heardMs = performance.now();
}

// Counts and newest transactions, one reading at a time however fast blocks come.
async function readContent(place, chain) {
  if (chain.isReading) return;
  chain.isReading = true;
  try {
    const unknown = chain.heads.slice(0, BLOCKS_SHOWN).filter((head) => !chain.counts.has(head.height));
    const counts = await batch(unknown.map((head) => ["eth_getBlockTransactionCountByNumber", [`0x${head.height.toString(16)}`]]));
    counts.forEach((count, at) => {
      if (!(count instanceof Error)) chain.counts.set(unknown[at].height, Number(count));
    });
    for (const height of chain.counts.keys()) if (height < chain.heads[0].height - BLOCKS_KEPT) chain.counts.delete(height);
    drawBlocks(place, chain);
    await readTransactions(place, chain);
  } finally {
    chain.isReading = false;
  }
}

// The newest ones, from as many blocks as it takes.
async function readTransactions(place, chain) {
  if (performance.now() < chain.nextReadMs) return;
  const heights = heightsOfNewest(chain);
  if (heights.length === 0 || heights[0] === chain.transactions[0]?.height) return;
  chain.nextReadMs = performance.now() + TRANSACTIONS_EVERY_MS;
  const blocks = await batch(heights.map((height) => ["eth_getBlockByNumber", [`0x${height.toString(16)}`, false]]));
  const hashes = blocks.flatMap((block) => block.transactions?.toReversed() ?? []).slice(0, TRANSACTIONS_SHOWN);
  const known = new Map(chain.transactions.map((each) => [each.hash, each]));
  const unknown = hashes.filter((hash) => !known.has(hash));
  const { what } = await import("../transactions.js"); // and the ABI's decoder, which is large: blocks come first
  for (const found of await batch(unknown.map((hash) => ["eth_getTransactionByHash", [hash]]))) {
    if (!found || found instanceof Error) continue;
    const { hash, from, blockNumber } = found;
    known.set(hash, { height: Number(blockNumber), hash, from, what: await what(found) });
  }
  chain.transactions = hashes.map((hash) => known.get(hash)).filter(Boolean);
  drawTransactions(place, chain);
}

function heightsOfNewest(chain) {
  const heights = [];
  let sum = 0;
  for (const { height } of chain.heads) {
    if (sum >= TRANSACTIONS_SHOWN) break;
    if (chain.counts.get(height)) heights.push(height);
    sum += chain.counts.get(height) ?? 0;
  }
  return heights;
}

// --- what is drawn -------------------------------------------------------------------------------------------------

function figure(heading) {
  const value = h("div", { class: "value" }, "–");
  const note = h("div", { class: "note" });
  const extra = h("div");
  return { node: h("section", { class: "card figure" }, h("h2", null, heading), value, note, extra), value, note, extra };
}

function tell(figure, value, note) {
  if (figure.value.textContent !== value) figure.value.textContent = value;
  if (figure.note.textContent !== note) figure.note.textContent = note;
}

function layout(main) {
  const place = {
    height: figure("Final block"),
    rate: figure("Blocks a second"),
    finality: figure("Finality"),
    load: figure("Transactions a second"),
    pool: figure("Pool"),
    energy: figure("kWh stored"),
    blocks: h("div"),
    transactions: h("div", null, h("p", { class: "muted" }, "None yet.")),
    validators: h("div"),
  };
  replace(
    main,
    h("h1", { class: "unseen" }, "The chain, live"),
    h("div", { class: "figures" }, ["height", "rate", "finality", "load", "pool", "energy"].map((name) => place[name].node)),
    h("div", { class: "cards" }, card("Blocks", place.blocks), card("Transactions", place.transactions)),
    card("Validators", place.validators),
  );
  return place;
}

const nameOf = (chain, address) => chain.names.get(address) || null;

function drawBlocks(place, chain) {
  const [head] = chain.heads;
  if (!head) return;
  tell(place.height, number(head.height), ago(head.timeMs));
  place.height.note.dataset.ms = head.timeMs;
  const isNew = place.blocks.dataset.height && Number(place.blocks.dataset.height) < head.height;
  place.blocks.dataset.height = head.height;
  drawRates(place, chain);
  refresh(
    place.blocks,
    table(
      "Newest final blocks",
      BLOCK_COLUMNS,
      chain.heads.slice(0, BLOCKS_SHOWN).map((each, at) =>
        row(
          BLOCK_COLUMNS,
          [
            blockLink(each.height),
            h("time", { datetime: new Date(each.timeMs).toISOString() }, clock(each.timeMs)),
            addressLink(each.miner, nameOf(chain, each.miner) ?? undefined),
            chain.counts.has(each.height) ? number(chain.counts.get(each.height)) : "…",
            fill(each.gasUsed, each.gasLimit),
          ],
          { class: isNew && at === 0 ? "new" : null },
        ),
      ),
    ),
  );
}

function fill(used, limit) {
  const part = Math.round((100 * used) / limit);
  return h("span", { class: "meter", role: "img", "aria-label": `${part} % of the block's gas` }, svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { width: used ? Math.max(part, 2) : 0, height: 10 })));
}

function drawRates(place, chain) {
  if (chain.heads.length < 2) return;
  const waited = waitedMs(chain);
  const seconds = (chain.heads[0].timeMs - chain.heads.at(-1).timeMs + waited) / 1000;
  const intervals = chain.heads.slice(1).map((each, at) => chain.heads[at].timeMs - each.timeMs).reverse();
  tell(place.rate, (intervals.length / seconds).toFixed(2), `of ${(1000 / chain.periodMs).toFixed(2)} that are due, over ${Math.round(seconds)} s`);
  replace(place.rate.extra, bars(waited ? [...intervals, waited] : intervals, chain.periodMs));
  const counted = chain.heads.slice(0, -1).filter((each) => chain.counts.has(each.height));
  const transactions = counted.reduce((sum, each) => sum + chain.counts.get(each.height), 0);
  tell(place.load, ((transactions / Math.max(1, counted.length)) * (intervals.length / seconds)).toFixed(1), "in final blocks");
}

// How long the next block is overdue: by the node's word, or since the last one was heard.
function waitedMs(chain) {
  const ms = chain.stalledSince ? Date.now() - new Date(chain.stalledSince) : performance.now() - chain.heardMs;
  return ms > LATE_PERIODS * chain.periodMs ? ms : 0;
}

function bars(intervals, periodMs) {
  const isLate = (each) => each > LATE_PERIODS * periodMs;
  const late = intervals.filter(isLate).length;
  return svg(
    "svg",
    { class: "bars", viewBox: `0 0 ${BLOCKS_KEPT} 100`, preserveAspectRatio: "none", role: "img", "aria-label": `Time between the last ${intervals.length} blocks: ${late} of them came late` },
    intervals.map((each, at) => {
      const height = Math.min(100, (100 * each) / (HIGHEST_PERIODS * periodMs));
      return svg("rect", { x: at, y: 100 - height, width: 0.8, height, class: isLate(each) ? "late" : null });
    }),
  );
}

function drawTransactions(place, chain) {
  refresh(
    place.transactions,
    table(
      "Newest transactions in final blocks",
      TRANSACTION_COLUMNS,
      chain.transactions.map((each) =>
        row(TRANSACTION_COLUMNS, [txLink(each.hash), each.what, addressLink(each.from), blockLink(each.height)]),
      ),
    ),
  );
}

// Whose turn it is goes round: view after view, by the order of the set.
function drawValidators(place, chain) {
  const [head] = chain.heads;
  const states = new Map((chain.states ?? []).map((each) => [each.address, each]));
  const turn = head && chain.order.length ? chain.order[(chain.epoch + head.view + 1) % chain.order.length] : null;
  refresh(
    place.validators,
    table(
      "Validators",
      VALIDATOR_COLUMNS,
      chain.order.map((address) => {
        const state = states.get(address);
        const made = chain.heads.filter((each) => each.miner === address).length;
        return row(VALIDATOR_COLUMNS, [
          addressLink(address, state?.name || undefined),
          h("span", null, presence(state), address === turn ? [" ", tag("warn", "its turn")] : null),
          heard(state),
          missed(state),
          number(made),
        ]);
      }),
    ),
  );
}

function drawAges(place) {
  const { ms } = place.height.note.dataset;
  if (ms) place.height.note.textContent = ago(ms);
}
