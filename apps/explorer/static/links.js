// Where each thing has its page.

import { h } from "./dom.js";
import { number, shortHash } from "./format.js";

const link = (to, text, kind = "") => h("a", { href: `#/${to}`, class: kind, title: kind === "mono" ? to.split("/")[1] : null }, text);

export const blockLink = (height) => link(`block/${Number(height)}`, number(height));
export const txLink = (hash, text = shortHash(hash)) => link(`tx/${hash}`, text, "mono");
export const addressLink = (address, text = shortHash(address)) => link(`account/${address}`, text, "mono");
export const prosumerLink = (address, text = shortHash(address)) => link(`prosumer/${address}`, text, "mono");
export const tokenLink = (id) => link(`token/${BigInt(id)}`, `CTT ${number(id)}`);
