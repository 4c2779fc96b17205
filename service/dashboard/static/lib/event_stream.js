// Server-sent events over fetch, since EventSource can send no key but in the address.

import { call } from "./api.js";

const SHORTEST_WAIT = 500;
const LONGEST_WAIT = 10_000;
const SILENCE = 45_000; // three heartbeats
const HIDDEN = 20_000; // after which a tab that nobody sees gives its connection back: a browser has six for a server

/**
 * Follow a stream until it ends or `signal` does, across lost connections: it goes on after the last event that came.
 *
 * What a listener throws is a fault of the page, not of the connection: it goes to the console, and the stream goes on.
 *
 * @param {string} path with its query
 * @param {object} options
 * @param {(event: {type: string, data: any}) => void} options.onEvent
 * @param {() => void} [options.onOpen] each time that it is connected
 * @param {(isLive: boolean) => void} [options.onState]
 */
export async function follow(path, { onEvent, onOpen, onState, signal }) {
  let last = null;
  let wait = SHORTEST_WAIT;
  while (!signal.aborted) {
    await visible(signal);
    const connection = new AbortController();
    const either = AbortSignal.any([signal, connection.signal]);
    const heard = endWhenSilent(connection);
    endWhenHidden(connection);
    try {
      const headers = { Accept: "text/event-stream", ...(last === null ? {} : { "Last-Event-ID": last }) };
      const response = await call("GET", path, { headers, signal: either });
      if (response.status === 204) return;
      tell(() => onState?.(true));
      tell(() => onOpen?.());
      for await (const event of events(response.body, heard)) {
        if (event.id !== undefined) last = event.id;
        wait = SHORTEST_WAIT;
        if (event.data !== "") tell(() => onEvent({ type: event.type, data: JSON.parse(event.data) }));
        if (event.type === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && !error.isAway) throw error; // refused: trying again would not help
    } finally {
      connection.abort();
    }
    if (signal.aborted) return;
    tell(() => onState?.(false));
    await pause(wait * (0.75 + Math.random() / 2), signal);
    wait = Math.min(LONGEST_WAIT, 2 * wait);
  }
}

function tell(listener) {
  try {
    listener();
  } catch (error) {
    console.error(error);
  }
}

/** Wait until somebody sees the page. */
function visible(signal) {
  if (!document.hidden) return undefined;
  return new Promise((resolve) => {
    const done = () => {
      document.removeEventListener("visibilitychange", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    document.addEventListener("visibilitychange", done);
    signal.addEventListener("abort", done);
  });
}

/** End a connection once nothing was heard for long, be it an answer or a part of one; call what comes back at each. */
function endWhenSilent(connection) {
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => connection.abort(), SILENCE);
  };
  connection.signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  heard();
  return heard;
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
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", done);
  });
}

/** The events of a body, by the rules of the HTML standard, section 9.2.6; `heard` is called with each part that comes. */
async function* events(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { type: "message", data: [] };
  try {
    while (true) {
      heard();
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
    reader.cancel().catch(() => {});
  }
}
