// Named checks, one after the other: for each a line of JSON with what it gave or the error that ended it.

export const task = JSON.parse(process.argv[2]);

/** Integers go as decimal strings, as JSON's numbers are not exact here. */
const exact = (_, value) => (typeof value === "bigint" ? value.toString() : value);

export async function run(checks) {
  for (const [name, check] of Object.entries(checks)) {
    let line;
    try {
      line = { name, value: (await check()) ?? null };
    } catch (error) {
      line = { name, error: `${error.stack} ${JSON.stringify(error, exact)}` };
    }
    console.log(JSON.stringify(line, exact));
  }
  process.exit(0);
}

/** What `attempt` throws; it must throw. */
export async function refusal(attempt) {
  try {
    await attempt();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was refused");
}

/** Waits until `holds` gives something true. */
export async function until(holds) {
  for (let tries = 0; tries < 1_500; tries += 1) {
    const value = await holds();
    if (value) return value;
    await new Promise((done) => setTimeout(done, 20));
  }
  throw new Error("it did not come to pass");
}
