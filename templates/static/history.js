/** What is stored, in pages. */

import { addressOf, base } from "./page.js";

const PAGE_MESSAGES = 50;
/** A request that is not answered by then has failed. */
const ANSWER_MAX_MS = 15_000;

/**
 * @param {object} parameters what `GET /api/messages` takes; those without a value are left out
 * @returns {Promise<{messages: object[], cursor: string, before: ?string, after?: ?string}>} messages oldest first
 */
export function loadMessages(parameters) {
  return load("/api/messages", { limit: PAGE_MESSAGES, ...parameters });
}

/** JSON from a path of this server, with these parameters. */
export async function load(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value) query.set(name, value);
  const response = await fetch(addressOf(`${base}${path}?${query}`), {
    headers: { accept: "application/json" },
    signal: AbortSignal.timeout(ANSWER_MAX_MS),
  });
  if (!response.ok) throw new Error(`The server answered ${response.status}.`);
  return response.json();
}
