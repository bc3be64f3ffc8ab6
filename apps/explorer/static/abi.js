// Calls, events and refusals in words, by the ABI that the node gives.

import { Interface } from "./vendor/ethers.min.js";
import { call } from "./rpc.js";

let modules = null;

// {address: {name, abi: Interface}} of the chain's native modules, asked for once.
export function contracts() {
  modules ??= call("ctt_abi").then(
    (answer) =>
      new Map(
        Object.entries(answer).map(([name, { address, abi }]) => [
          address.toLowerCase(),
          { name, address, abi: new Interface(abi) },
        ]),
      ),
    (error) => {
      modules = null;
      throw error;
    },
  );
  return modules;
}

export async function contract(name) {
  return [...(await contracts()).values()].find((each) => each.name === name);
}

const named = (module, fragment, values) => ({
  module,
  name: fragment.name,
  args: fragment.inputs.map(({ name, type }, at) => ({ name, type, value: values[at] })),
});

// Null for what is no call of a native module, such as a payment.
export async function decodeCall({ to, data, input }) {
  const found = to && (await contracts()).get(to.toLowerCase());
  const parsed = found && tried(() => found.abi.parseTransaction({ data: data ?? input }));
  return parsed ? named(found.name, parsed.fragment, parsed.args) : null;
}

export async function decodeLog({ address, topics, data }) {
  const found = (await contracts()).get(address.toLowerCase());
  const parsed = found && tried(() => found.abi.parseLog({ topics, data }));
  return parsed ? named(found.name, parsed.fragment, parsed.args) : null;
}

// An error of any module: they call each other.
export async function decodeRevert(data) {
  for (const { name, abi } of (await contracts()).values()) {
    const parsed = data && data !== "0x" && tried(() => abi.parseError(data));
    if (parsed) return named(name, parsed.fragment, parsed.args);
  }
  return null;
}

function tried(parse) {
  try {
    return parse();
  } catch {
    return null;
  }
}

// "ERC721InsufficientApproval" -> "ERC721 insufficient approval", "notOnSale" -> "Not on sale".
export function words(name) {
  const [, standard, rest] = name.match(/^(ERC\d+(?=[A-Z]))?(.*)$/);
  const text = rest.replace(/([a-z0-9])([A-Z])/g, "$1 $2").toLowerCase();
  return standard ? `${standard} ${text}` : text[0].toUpperCase() + text.slice(1);
}
