// Fetch changing data again.

import { throttle } from "./timing.js";

/** Milliseconds until a failed request is retried. */
export const RETRY_MILLISECONDS = 2000;

/**
 * A function that fetches and shows an answer, now and at most every `milliseconds`, until `signal` aborts.
 *
 * The last call is never dropped: it is retried while kotrain is not responding. Answers that arrive after a later one
 * are dropped. Other errors are passed to `onError`.
 */
export function refresher(fetchAnswer, show, { milliseconds, signal, onError }) {
  let requested = 0;
  let shown = 0;
  const refresh = throttle(
    async () => {
      const request = (requested += 1);
      let answer;
      try {
        answer = await fetchAnswer();
      } catch (error) {
        if (error.isTemporary) setTimeout(refresh, RETRY_MILLISECONDS);
        else onError(error);
        return;
      }
      if (request < shown || signal.aborted) return;
      shown = request;
      show(answer);
    },
    milliseconds,
    signal,
  );
  return refresh;
}
