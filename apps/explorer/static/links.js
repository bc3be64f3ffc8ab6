// Where each thing has its page.

import { h } from "./dom.js";
import { number, shortHash } from "./format.js";

const link = (to, text) =>
  text.startsWith("0x") ? h("a", { href: `#/${to}`, class: "mono", title: to.split("/")[1] }, text) : h("a", { href: `#/${to}` }, text);

export const blockLink = (height) => link(`block/${Number(height)}`, number(height));
export const txLink = (hash, text = shortHash(hash)) => link(`tx/${hash}`, text);
export const addressLink = (address, text = shortHash(address)) => link(`account/${address}`, text);
export const prosumerLink = (address, text = shortHash(address)) => link(`prosumer/${address}`, text);
export const tokenLink = (id) => link(`token/${BigInt(id)}`, `CTT ${number(id)}`);
