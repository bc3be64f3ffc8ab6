// Which page the address names, and what all pages share.

import { h, notice, replace, title } from "./dom.js";
import { call, onConnection, onHead } from "./rpc.js";

const routes = [
  [/^$/, "home"],
  [/^blocks(?:\/(\d{1,15}))?$/, "blocks"],
  [/^block\/(\d{1,15}|0x[0-9a-f]{64})$/, "block"],
  [/^tx\/(0x[0-9a-f]{64})$/, "tx"],
  [/^account\/(0x[0-9a-f]{40})$/i, "account"],
  [/^validators$/, "validators"],
  [/^tokens(?:\/(\d{1,15}))?$/, "tokens"],
  [/^token\/(\d{1,15})$/, "token"],
  [/^prosumer\/(0x[0-9a-f]{40})$/i, "prosumer"],
  [/^market$/, "market"],
  [/^supply$/, "supply"],
  [/^wallet$/, "wallet"],
  [/^search\/(.+)$/s, "search"],
];

const main = document.getElementById("main");
let stop = null;
let turn = 0;

async function show() {
  const mine = ++turn;
  const path = decodeURIComponent(location.hash.replace(/^#\/?/, ""));
  stop?.();
  stop = null;
  mark(path);
  replace(main);
  main.setAttribute("aria-busy", "true");
  try {
    const found = routes.map(([pattern, name]) => [path.match(pattern), name]).find(([match]) => match);
    if (!found) throw new Error(`There is no page “${path.slice(0, 80)}”.`);
    const [[, ...groups], name] = found;
    const page = await import(`./pages/${name}.js`);
    const place = h("div", { class: `page ${name}` });
    const ended = await page.default(place, ...groups);
    if (mine !== turn) {
      ended?.();
      return;
    }
    stop = ended ?? null;
    replace(main, place);
  } catch (error) {
    if (mine === turn) {
      title("Not shown");
      replace(main, notice(error.message, "bad"));
    }
  } finally {
    if (mine === turn) main.removeAttribute("aria-busy");
  }
}

function mark(path) {
  const first = path.split("/")[0];
  for (const link of document.querySelectorAll("nav a")) {
    const is = link.getAttribute("href").replace(/^#\/?/, "").split("/")[0] === first;
    if (is) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const what = new FormData(event.target).get("what").trim();
  if (what) location.hash = `#/search/${encodeURIComponent(what)}`;
});

addEventListener("hashchange", () => {
  if (location.hash === "#main") return; // the skip link
  show().then(() => main.focus({ preventScroll: true }));
  scrollTo(0, 0);
});

// --- whether the chain lives -----------------------------------------------------------------------------------------

const STALLED_MS = 5000;
const STALLED_PERIODS = 3; // at least, where blocks are slow
const LOOK_MS = 1000;
const sign = document.getElementById("connection");
let connection = "connecting";
let heardAt = 0;
let status = null;
let isLooking = false;

const isOverdue = () => performance.now() - heardAt > Math.max(STALLED_MS, STALLED_PERIODS * (status?.blockPeriodMs ?? 0));

// Only what the node says itself: a head that came lately, or its own word that there has been none.
function judge() {
  if (connection === "lost") return ["bad", "connection lost"];
  if (connection === "connecting" || !status) return ["", "connecting…"];
  if (status.syncing) return ["warn", "catching up"];
  if (status.finality === "live" && !isOverdue()) return ["ok", "live"];
  if (status.finality === "stalled") {
    return ["bad", `stalled since ${new Date(status.since).toLocaleTimeString()}`];
  }
  return ["warn", "no new block"];
}

function tell() {
  const [kind, text] = judge();
  if (sign.textContent !== text) sign.textContent = text;
  sign.className = `tag ${kind}`;
}

async function look() {
  if (isLooking) return;
  isLooking = true;
  try {
    status = await call("ctt_chainStatus");
    document.getElementById("chain").textContent = `Chain ${status.chainId} · genesis ${status.genesisHash.slice(0, 18)}…`;
  } catch {
    status = null;
  } finally {
    isLooking = false;
  }
  tell();
}

onConnection((state) => {
  connection = state;
  if (state === "open") look();
  tell();
});
onHead(() => {
  heardAt = performance.now();
  if (status?.finality !== "live" || status.syncing) look();
  else tell();
});
setInterval(() => {
  tell(); // a node that hangs answers nothing
  if (isOverdue()) look();
}, LOOK_MS);

show();
