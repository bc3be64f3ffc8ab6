// Forms that send something with the wallet in use, and say what came of it.

import { announce, h, replace } from "./dom.js";
import { txLink } from "./links.js";
import { send, wallet } from "./wallet.js";

// `fields` are [name, label, placeholder]; `prepare(values)` gives what `send` takes, or throws Error for what is no
// such value; `cost(values)` says what it will cost, as text.
export function deal({ name, fields = [], prepare, cost = () => "", after = () => {} }) {
  const button = h("button", { type: "submit", class: "main" }, name);
  const price = h("span", { class: "muted cost" });
  const told = h("p", { class: "told", role: "status" });
  const form = h(
    "form",
    { class: "row", "aria-label": name },
    fields.map(([key, label, placeholder]) => h("label", null, label, h("input", { name: key, placeholder, inputmode: "decimal", autocomplete: "off", required: true }))),
    button,
    price,
  );
  const values = () => Object.fromEntries(new FormData(form));
  const reprice = () => {
    try {
      price.textContent = cost(values());
    } catch {
      price.textContent = "";
    }
  };
  form.addEventListener("input", reprice);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    told.className = "told";
    try {
      if (!wallet()) throw new Error("Connect a wallet first, on the page Wallet.");
      const receipt = await send({ ...(await prepare(values())), tell: (text) => replace(told, text) });
      replace(told, "Done: ", txLink(receipt.transactionHash));
      announce(`${name}: done`);
      form.reset();
      after();
    } catch (error) {
      told.className = "told notice bad";
      replace(told, error.message);
      announce(error.message);
    } finally {
      button.disabled = false;
      reprice();
    }
  });
  reprice();
  return h("div", { class: "deal" }, form, told);
}

// "1.5" kWh -> 1500n Wh; "0.12" units a kWh -> wei a Wh. Throws Error that names the value.
export const wh = (text) => fixed(text, 3, "kWh, with three decimals at most");
export const weiPerWh = (text) => fixed(text, 15, "a price per kWh");
export const wei = (text) => fixed(text, 18, "an amount");

export function whole(text, max) {
  if (!/^\d{1,9}$/.test(text) || Number(text) < 1 || Number(text) > max) throw new Error(`“${text}” is no whole number from 1 to ${max}.`);
  return BigInt(text);
}

function fixed(text, places, what) {
  const match = text.trim().match(/^(\d{1,20})(?:\.(\d+))?$/);
  if (!match || (match[2] ?? "").length > places) throw new Error(`“${text}” is not ${what}.`);
  return BigInt(match[1] + (match[2] ?? "").padEnd(places, "0"));
}
