// How much there is: tokens times what each can hold is what all can store.

import { card, facts, h, replace, title } from "../dom.js";
import { originBar } from "../energy.js";
import { kwh, number, percent } from "../format.js";
import { addressLink } from "../links.js";
import { call, live } from "../rpc.js";

const EVERY_MS = 1000;

export default async function supply(main) {
  title("Supply");
  const draw = async () => show(main, await call("ctt_supply"));
  await draw();
  return live(draw, EVERY_MS);
}

function show(main, found) {
  const each = BigInt(found.tokenCapabilityWh);
  const storage = BigInt(found.tokens) * each;
  replace(
    main,
    h("h1", null, "Supply"),
    card(
      "MET × CET = TES",
      h(
        "div",
        { class: "equation" },
        term(number(found.maxTokens), "tokens at most (MET)"),
        h("span", { "aria-hidden": "true" }, "×"),
        term(found.tokenCapability, "in each (CET)"),
        h("span", { "aria-hidden": "true" }, "="),
        term(kwh(BigInt(found.maxTokens) * each), "of storage in all (TES)"),
      ),
    ),
    h(
      "div",
      { class: "cards" },
      card(
        "Now",
        facts(
          ["Tokens bought", `${number(found.tokens)} (${percent(found.tokens, found.maxTokens)} of all)`],
          ["They can hold", kwh(storage)],
          ["They hold", `${found.energyStored} (${percent(found.energyStoredWh, storage)})`],
          ["Of which came from", originBar(found.origin)],
          ["An empty token", found.emptyTokenPrice],
          ["Administered by", addressLink(found.admin, found.admin)],
        ),
      ),
      card(
        "Ever",
        facts(
          ["Stored by meters", found.everStored],
          ["Covered consumption", found.everCovered],
          ["Retired, by origin", originBar(found.retired)],
        ),
      ),
    ),
  );
}

const term = (value, name) => h("div", null, h("div", { class: "value" }, value), h("div", { class: "note muted" }, name));
