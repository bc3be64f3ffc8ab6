// Who validates now and next, whether they are there, and who was caught voting twice.

import { contract } from "../abi.js";
import { card, facts, h, refresh, replace, row, table, tag, title } from "../dom.js";
import { number } from "../format.js";
import { addressLink, blockLink } from "../links.js";
import { batch, call, onHead } from "../rpc.js";

const SILENT_MS = 10000;
const BLOCKS = 90;
const OFFENCES_SHOWN = 100;
const COLUMNS = ["Validator", "Address", "State", ">Last heard", ">Votes missed", `>Blocks of the last ${BLOCKS}`, "Consensus key"];
const OFFENCE_COLUMNS = ["Validator", "What the chain holds"];

export default async function validators(main) {
  title("Validators");
  let isReading = false;
  const place = { epoch: h("div"), now: h("div") };
  replace(
    main,
    h("h1", null, "Validators"),
    card(null, place.epoch),
    card("Now", place.now),
    card("Votes for two different things", await offences()),
  );
  await draw(place);
  return onHead(async (head) => {
    if (isReading || head.height % 6) return;
    isReading = true;
    await draw(place).catch(() => {});
    isReading = false;
  });
}

async function draw(place) {
  const height = Number(await call("eth_blockNumber"));
  const heights = Array.from({ length: Math.min(BLOCKS, height) }, (_, at) => `0x${(height - at).toString(16)}`);
  const [set, node, ...headers] = await batch([
    ["ctt_validators", ["latest"]],
    ["ctt_nodeStatus"],
    ...heights.map((each) => ["eth_getBlockByNumber", [each, false]]),
  ]);
  if (set instanceof Error) throw set;
  const states = new Map((node instanceof Error ? [] : node.validators).map((each) => [each.address, each]));
  const made = new Map();
  for (const header of headers) if (header?.miner) made.set(header.miner, (made.get(header.miner) ?? 0) + 1);
  const newest = headers[0];
  const turn = newest && !(newest instanceof Error) ? set.validators[(set.epoch + Number(newest.view) + 1) % set.validators.length].address : null;
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
          !state ? "–" : state.heardMs === null ? "this node" : `${(state.heardMs / 1000).toFixed(1)} s ago`,
          state?.votesMissed === null || !state ? "–" : number(state.votesMissed),
          number(made.get(each.address) ?? 0),
          h("span", { class: "mono", title: each.consensusKey }, `${each.consensusKey.slice(0, 14)}…`),
        ]);
      }),
    ),
  );
}

function presence(state) {
  if (!state) return tag("", "unknown");
  return state.heardMs !== null && state.heardMs > SILENT_MS ? tag("bad", "missing") : tag("ok", "present");
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
