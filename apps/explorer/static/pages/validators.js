// Who validates now and next, whether they are there, and who was caught voting twice.

import { contract } from "../abi.js";
import { card, facts, h, refresh, replace, row, table, tag, title } from "../dom.js";
import { number } from "../format.js";
import { addressLink, blockLink } from "../links.js";
import { batch, call, headOf, onHead } from "../rpc.js";
import { heard, missed, presence } from "../validators.js";

const BLOCKS = 90;
const EVERY_BLOCKS = 6;
const OFFENCES_SHOWN = 100;
const COLUMNS = ["Validator", "Address", "State", ">Last heard", ">Votes missed", `>Blocks of the last ${BLOCKS}`, "Consensus key"];
const OFFENCE_COLUMNS = ["Validator", "What the chain holds"];

export default async function validators(main) {
  title("Validators");
  const place = { epoch: h("div"), now: h("div") };
  replace(
    main,
    h("h1", null, "Validators"),
    card(null, place.epoch),
    card("Now", place.now),
    card("Votes for two different things", await offences()),
  );
  let heads = await newestHeads();
  let isReading = false;
  await draw(place, heads);
  return onHead(async (head) => {
    if (!heads.length || head.height === heads[0].height + 1) heads = [head, ...heads].slice(0, BLOCKS);
    if (isReading || head.height % EVERY_BLOCKS) return;
    isReading = true;
    if (head.height > heads[0].height) heads = await newestHeads().catch(() => heads);
    await draw(place, heads).catch(() => {});
    isReading = false;
  });
}

async function newestHeads() {
  const height = Number(await call("eth_blockNumber"));
  const heights = Array.from({ length: Math.min(BLOCKS, height) }, (_, at) => `0x${(height - at).toString(16)}`);
  const found = await batch(heights.map((each) => ["eth_getBlockByNumber", [each, false]]));
  return found.filter((block) => block && !(block instanceof Error)).map(headOf);
}

async function draw(place, heads) {
  const [set, node] = await batch([["ctt_validators", ["latest"]], ["ctt_nodeStatus"]]);
  if (set instanceof Error) throw set;
  const states = new Map((node instanceof Error ? [] : node.validators).map((each) => [each.address, each]));
  const made = new Map();
  for (const { miner } of heads) made.set(miner, (made.get(miner) ?? 0) + 1);
  const turn = heads.length ? set.validators[(set.epoch + heads[0].view + 1) % set.validators.length].address : null;
  refresh(
    place.epoch,
    facts(
      ["Epoch", h("span", null, `${number(set.epoch)}, blocks `, blockLink(set.firstHeight), ` to ${number(set.lastHeight)}`)],
      ["Quorum", `${number(set.quorum)} of ${number(set.validators.length)} votes make a block final`],
      ["Next epoch", next(set)],
    ),
  );
  refresh(
    place.now,
    table(
      "Validators of this epoch",
      COLUMNS,
      set.validators.map((each) => {
        const state = states.get(each.address);
        return row(COLUMNS, [
          state?.name ?? "–",
          addressLink(each.address),
          h("span", null, presence(state), each.address === turn ? [" ", tag("warn", "its turn")] : null),
          heard(state),
          missed(state),
          number(made.get(each.address) ?? 0),
          h("span", { class: "mono", title: each.consensusKey }, `${each.consensusKey.slice(0, 14)}…`),
        ]);
      }),
    ),
  );
}

const next = (set) =>
  !set.next ? "not fixed yet" : set.next.hash === set.hash ? "the same set" : h("span", null, set.next.validators.map((each, at) => [at ? ", " : null, addressLink(each.address)]));

async function offences() {
  const authority = await contract("Authority");
  if (!authority) return h("p", { class: "muted" }, "This chain keeps no record of them.");
  const data = authority.abi.encodeFunctionData("offences", [0, OFFENCES_SHOWN]);
  const [found] = authority.abi.decodeFunctionResult("offences", await call("eth_call", { to: authority.address, data }));
  if (found.length === 0) return h("p", { class: "muted" }, "None was ever proven on this chain.");
  return table(
    "Offences",
    OFFENCE_COLUMNS,
    found.map((each) => row(OFFENCE_COLUMNS, [addressLink(each.validator.toLowerCase(), each.validator), h("span", { class: "mono" }, Object.entries(each.toObject()).map(([name, value]) => `${name} ${value}`).join(", "))])),
  );
}
