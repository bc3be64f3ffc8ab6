// Who validates, and under which names.

import { call } from "./rpc.js";

// {address: name} of those that this node knows by name.
export async function namesOf() {
  const { validators } = await call("ctt_nodeStatus");
  return new Map(validators.filter((each) => each.name).map((each) => [each.address, each.name]));
}
