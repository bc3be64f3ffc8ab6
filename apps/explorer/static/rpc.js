// JSON-RPC to the node that served this page: requests by HTTP, new heads by WebSocket.

const CALL_MS_MAX = 15000;
const PAUSE_MS_MIN = 500;
const PAUSE_MS_MAX = 15000;

export class RpcError extends Error {
  constructor({ code, message, data }) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

let nextId = 1;

async function post(body) {
  let response;
  try {
    response = await fetch("/", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(CALL_MS_MAX),
    });
  } catch {
    throw new Error("The node does not answer.");
  }
  if (!response.ok) throw new Error(`The node refuses: ${(await response.text()).trim() || response.status}`);
  return response.json();
}

const request = (method, params) => ({ jsonrpc: "2.0", id: nextId++, method, params });

// Throws RpcError for the node's own refusals, Error when there is no answer.
export async function call(method, ...params) {
  const answer = await post(request(method, params));
  if (answer.error) throw new RpcError(answer.error);
  return answer.result;
}

// The results in order; where a call was refused stands its RpcError.
export async function batch(calls) {
  if (calls.length === 0) return [];
  const asked = calls.map(([method, params]) => request(method, params ?? []));
  const answers = await post(asked);
  if (!Array.isArray(answers)) throw new RpcError(answers.error);
  const byId = new Map(answers.map((answer) => [answer.id, answer]));
  return asked.map(({ id }) => {
    const answer = byId.get(id);
    return answer.error ? new RpcError(answer.error) : answer.result;
  });
}

// --- new heads ---------------------------------------------------------------------------------------------------

const listeners = new Set();
const watchers = new Set();
let socket = null;
let pauseMs = PAUSE_MS_MIN;
let newest = null;

// Whether new heads are heard of: "connecting", "open", "lost".
export let connection = "connecting";

export const headOf = (block) => ({
  height: Number(block.number),
  hash: block.hash,
  timeMs: Number(block.timestampMilliseconds),
  view: Number(block.view),
  miner: block.miner,
  gasUsed: Number(block.gasUsed),
  gasLimit: Number(block.gasLimit),
});

// Calls the listener with each new final head, and at once with the newest one known. Returns how to stop it.
export function onHead(listener) {
  listeners.add(listener);
  if (newest) listener(newest);
  if (!socket) connect();
  return () => listeners.delete(listener);
}

// Draws anew with new heads, one drawing at a time and at most one in so many ms: what a page asks for must fit into the
// 50 units a second that a public client has. Returns how to stop it.
export function live(draw, everyMs) {
  let isDrawing = false;
  let nextMs = performance.now() + everyMs;
  return onHead(async () => {
    if (isDrawing || performance.now() < nextMs) return;
    isDrawing = true;
    nextMs = performance.now() + everyMs;
    await draw().catch(() => {});
    isDrawing = false;
  });
}

export function onConnection(watcher) {
  watchers.add(watcher);
  watcher(connection);
  return () => watchers.delete(watcher);
}

function become(state) {
  connection = state;
  for (const watcher of watchers) watcher(state);
}

function tell(block) {
  newest = headOf(block);
  for (const listener of listeners) listener(newest);
}

function connect() {
  socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/`);
  socket.onopen = () => socket.send(JSON.stringify(request("eth_subscribe", ["newHeads"])));
  socket.onmessage = async (event) => {
    const message = JSON.parse(event.data);
    if (message.method === "eth_subscription") {
      tell(message.params.result);
    } else if (message.result) {
      pauseMs = PAUSE_MS_MIN;
      become("open");
      try {
        const block = await call("eth_getBlockByNumber", "latest", false);
        if (!newest || Number(block.number) > newest.height) tell(block);
      } catch {
        // The next head comes by the subscription.
      }
    } else {
      socket.close();
    }
  };
  socket.onclose = () => {
    become("lost");
    setTimeout(connect, pauseMs * (0.5 + Math.random()));
    pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX);
  };
}
