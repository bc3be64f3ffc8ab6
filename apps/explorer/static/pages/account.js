// One address: what it owns, what it may, and where else it is described.

import { contracts } from "../abi.js";
import { card, facts, h, replace, tag, title } from "../dom.js";
import { money, number, shortHash } from "../format.js";
import { addressLink, prosumerLink } from "../links.js";
import { batch } from "../rpc.js";
import { namesOf } from "../validators.js";

const given = (answer) => (answer instanceof Error ? null : answer);

export default async function account(main, address) {
  title(`Account ${shortHash(address)}`);
  const [modules, names, answers] = await Promise.all([
    contracts(),
    namesOf(),
    batch([
      ["eth_getBalance", [address, "latest"]],
      ["eth_getTransactionCount", [address, "latest"]],
      ["eth_getTransactionCount", [address, "pending"]],
      ["ctt_prosumer", [address]],
      ["ctt_meter", [address]],
      ["ctt_validators", ["latest"]],
    ]),
  ]);
  const [balance, nonce, pending, prosumer, meter, set] = answers.map(given);
  if (balance === null) throw answers[0];
  const module = modules.get(address.toLowerCase());
  const validates = set?.validators.some((each) => each.address === address.toLowerCase());
  replace(
    main,
    h(
      "div",
      { class: "head" },
      h("h1", { class: "mono" }, address),
      module ? tag("warn", `the module ${module.name}`) : null,
      validates ? tag("ok", `validator ${names.get(address.toLowerCase()) ?? ""}`) : null,
      prosumer ? tag("ok", "prosumer") : null,
      meter ? tag("ok", "meter") : null,
    ),
    h(
      "div",
      { class: "cards" },
      card(
        "Account",
        facts(
          ["Balance", money(balance)],
          ["Transactions sent", number(nonce)],
          ["Waiting in the pool", Number(pending) > Number(nonce) ? number(Number(pending) - Number(nonce)) : null],
        ),
      ),
      prosumer ? card("Prosumer", prosumerFacts(prosumer)) : null,
      meter ? card("Meter", meterFacts(meter)) : null,
    ),
    h("p", { class: "muted" }, "This is what the account is now. No node lists the past transactions of an account; the database of ctt index does."),
  );
}

const prosumerFacts = (each) =>
  facts(
    ["Meter", each.meter ? h("span", null, addressLink(each.meter, each.meter), " ", each.confirmed ? tag("ok", "confirmed") : tag("warn", "not confirmed")) : "none"],
    ["Tokens", `${number(each.tokens.count)}, of which ${number(each.tokens.full)} full and ${number(each.tokens.empty)} empty`],
    ["Energy stored", each.stored],
    ["Energy and market", prosumerLink(each.address, "its page")],
  );

const meterFacts = (each) =>
  facts(
    ["Prosumer", each.prosumer ? prosumerLink(each.prosumer, each.prosumer) : "none yet"],
    ["Certificate", each.certified ? tag("ok", "certified") : tag("bad", "revoked")],
    ["Source", each.source ?? "none"],
    ["Greatest power", each.maxPower ?? "not limited"],
    ["Operator", addressLink(each.operator, each.operator)],
    ["Kind", each.concentrator ? "concentrator: it speaks for many meters" : "a meter of its own"],
  );
