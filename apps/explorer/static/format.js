// Figures for people. Energy and money are exact: they come as decimal or hexadecimal strings and stay whole numbers.

const GROUP = /\B(?=(\d{3})+(?!\d))/g;

const grouped = (digits) => digits.replace(GROUP, ",");

// A whole number of 10**-places, without zeros at the end beyond `least` places.
function decimal(value, places, least = 0) {
  const whole = BigInt(value);
  const digits = (whole < 0n ? -whole : whole).toString().padStart(places + 1, "0");
  let fraction = digits.slice(digits.length - places);
  while (fraction.length > least && fraction.endsWith("0")) fraction = fraction.slice(0, -1);
  const text = grouped(digits.slice(0, digits.length - places)) + (fraction ? `.${fraction}` : "");
  return whole < 0n ? `−${text}` : text;
}

export const number = (value) => {
  const text = BigInt(value).toString();
  return text.startsWith("-") ? `−${grouped(text.slice(1))}` : grouped(text);
};

export const kwh = (wh) => `${decimal(wh, 3, 3)} kWh`;

export const money = (wei) => decimal(wei, 18, 2);

// To five places, and said so when there were more.
export function price(weiPerWh) {
  const units = (BigInt(weiPerWh) + 5n * 10n ** 9n) / 10n ** 10n;
  const isExact = BigInt(weiPerWh) % 10n ** 10n === 0n;
  return `${isExact ? "" : "≈ "}${decimal(units, 5, 2)} per kWh`;
}

export const percent = (part, whole) =>
  BigInt(whole) === 0n ? "–" : `${decimal((BigInt(part) * 1000n) / BigInt(whole), 1, 1)} %`;

export const time = (ms) =>
  new Date(Number(ms)).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

const CLOCK = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  hourCycle: "h23",
});

export const clock = (ms) => CLOCK.format(Number(ms));

export function ago(ms) {
  const seconds = Math.max(0, (Date.now() - Number(ms)) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

export const shortHash = (hash) => `${hash.slice(0, 10)}…${hash.slice(-6)}`;
