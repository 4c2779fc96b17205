// Debounce and throttle function calls.

/** A function that calls `work` once it has not been called for `milliseconds`. */
export function debounce(work, milliseconds) {
  let timer;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
}

/** A function that calls `work` now and then at most every `milliseconds`; the last call is never dropped. */
export function throttle(work, milliseconds, signal) {
  let isWaiting = false;
  let isDue = false;
  const run = () => {
    if (signal?.aborted) return;
    if (isWaiting) {
      isDue = true;
      return;
    }
    isWaiting = true;
    setTimeout(() => {
      isWaiting = false;
      if (isDue) {
        isDue = false;
        run();
      }
    }, milliseconds);
    work();
  };
  return run;
}
