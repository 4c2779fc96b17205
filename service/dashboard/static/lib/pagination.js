// Lists that the API gives in pages.

import { get } from "./api.js";

const MOST_AT_ONCE = 500; // that the API gives

/**
 * The first `wanted` rows of a list and `next`, where those after them begin.
 *
 * A list that changes is asked for anew as far as it is shown, so that no answer takes away what somebody asked to see.
 */
export async function beginning(path, query, wanted, signal) {
  const rows = [];
  let next = "";
  do {
    const limit = Math.min(MOST_AT_ONCE, wanted - rows.length);
    const page = await get(path, { ...query, limit, after: next }, signal);
    rows.push(...page.data);
    next = page.next;
  } while (next && rows.length < wanted);
  return { rows, next };
}
