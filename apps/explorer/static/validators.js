// Who validates, under which names, and what this node has heard of them.

import { tag } from "./dom.js";
import { number } from "./format.js";
import { call } from "./rpc.js";

const SILENT_MS = 10000; // who was heard longer ago is missing

// {address: name} of those that this node knows by name.
export async function namesOf() {
  const { validators } = await call("ctt_nodeStatus");
  return new Map(validators.filter((each) => each.name).map((each) => [each.address, each.name]));
}

// Each of a validator as ctt_nodeStatus tells of it; undefined where it does not.
export function presence(state) {
  if (!state) return tag("", "unknown");
  return state.heardMs !== null && state.heardMs > SILENT_MS ? tag("bad", "missing") : tag("ok", "present");
}

export const heard = (state) =>
  !state ? "–" : state.heardMs === null ? "this node" : `${(state.heardMs / 1000).toFixed(1)} s ago`;

// Null on a follower, which counts no votes.
export const missed = (state) => (state && state.votesMissed !== null ? number(state.votesMissed) : "–");
