// Fetch lists that the API returns in pages.

import { get } from "./api.js";

const MAX_PAGE = 500; // rows, the API's limit

/**
 * The first `count` rows of a list, and in `next` the cursor of the rows after them.
 *
 * A list that changes is fetched again up to the last row shown, so that an update never shortens it.
 */
export async function firstRows(path, query, count, signal) {
  const rows = [];
  let next = "";
  do {
    const limit = Math.min(MAX_PAGE, count - rows.length);
    const page = await get(path, { ...query, limit, after: next }, signal);
    rows.push(...page.data);
    next = page.next;
  } while (next && rows.length < count);
  return { rows, next };
}
