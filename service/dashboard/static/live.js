// Server-sent events over fetch, since EventSource can send no key but in the address.

import { call } from "./api.js";

const SHORTEST_WAIT = 500;
const LONGEST_WAIT = 10_000;
const SILENCE = 45_000; // three heartbeats
const HIDDEN = 20_000; // after which a tab that nobody sees gives its connection back: a browser has six for a server

/**
 * Follow a stream until it ends or `signal` does, across lost connections: it goes on after the last event that came.
 *
 * @param {string} path with its query
 * @param {object} options
 * @param {(event: {type: string, data: any}) => void} options.onEvent
 * @param {() => void} [options.onOpen] each time that it is connected; `true` the first time
 * @param {(isLive: boolean) => void} [options.onState]
 */
export async function follow(path, { onEvent, onOpen, onState, signal }) {
  let last = null;
  let wait = SHORTEST_WAIT;
  let isFirst = true;
  while (!signal.aborted) {
    await visible(signal);
    const silence = new AbortController();
    const either = AbortSignal.any([signal, silence.signal]);
    endWhenHidden(silence);
    try {
      const headers = { Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": last }) };
      const response = await call("GET", path, { headers, signal: either });
      if (response.status === 204) return;
      onState?.(true);
      onOpen?.(isFirst);
      isFirst = false;
      for await (const event of events(response.body, silence)) {
        if (event.id !== undefined) last = event.id;
        wait = SHORTEST_WAIT;
        if (event.data !== "") onEvent({ type: event.type, data: JSON.parse(event.data) });
        if (event.type === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && !error.isAway) throw error; // refused: trying again would not help
    } finally {
      silence.abort();
    }
    if (signal.aborted) return;
    onState?.(false);
    await pause(wait * (0.75 + Math.random() / 2), signal);
    wait = Math.min(LONGEST_WAIT, 2 * wait);
  }
}

/** Wait until somebody sees the page. */
function visible(signal) {
  if (!document.hidden) return undefined;
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true, signal });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

/** End a connection some time after the page was hidden, unless it is seen again before. */
function endWhenHidden(connection) {
  let timer;
  const look = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => connection.abort(), HIDDEN);
  };
  document.addEventListener("visibilitychange", look, { signal: connection.signal });
  connection.signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

/** The events of a body, by the rules of the HTML standard, section 9.2.6. A long silence counts as a lost connection. */
async function* events(body, silence) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let timer;
  let rest = "";
  let event = { type: "message", data: [] };
  try {
    while (true) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE);
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (event.data.length || event.id !== undefined) yield { ...event, data: event.data.join("\n") };
          event = { type: "message", data: [] };
        } else if (!line.startsWith(":")) {
          const colon = line.indexOf(":");
          const field = colon < 0 ? line : line.slice(0, colon);
          const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
          if (field === "event") event.type = text;
          else if (field === "data") event.data.push(text);
          else if (field === "id") event.id = text;
        }
      }
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}
