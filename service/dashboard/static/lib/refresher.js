// Looking again at what changes.

import { throttled } from "./dom.js";
import { toast } from "../components/parts.js";

/** Milliseconds until kotrain is asked again where it was away. */
export const AGAIN = 2000;

/**
 * A function that asks and shows the answer, now and at most every `milliseconds`, until `signal` ends it.
 *
 * The last call always counts: while kotrain is away it is asked again. An answer that a later one has overtaken is
 * dropped.
 */
export function refresher(ask, show, { milliseconds, signal }) {
  let asked = 0;
  let shown = 0;
  const refresh = throttled(
    async () => {
      const mine = (asked += 1);
      let answer;
      try {
        answer = await ask();
      } catch (error) {
        if (error.isAway) setTimeout(refresh, AGAIN);
        else if (error.name !== "AbortError") toast(error.message, "error");
        return;
      }
      if (mine < shown || signal.aborted) return;
      shown = mine;
      show(answer);
    },
    milliseconds,
    signal,
  );
  return refresh;
}
