// Server-sent events over fetch: EventSource cannot send the key in a header.

import { call } from "./api.js";

const MIN_WAIT = 500; // milliseconds between two connections
const MAX_WAIT = 10_000;
const SILENCE = 45_000; // three heartbeats
const HIDDEN = 20_000; // until a hidden tab closes its connection: browsers allow six to a server

/**
 * Follow a stream until it ends or `signal` aborts. A lost connection resumes after the last event received.
 *
 * An exception in a listener is a fault of the page: it is logged, and the stream continues.
 *
 * @param {string} path with its query
 * @param {object} options
 * @param {(event: {type: string, data: any}) => void} options.onEvent
 * @param {() => void} [options.onOpen] called for each connection
 * @param {(isLive: boolean) => void} [options.onState]
 */
export async function follow(path, { onEvent, onOpen, onState, signal }) {
  const stream = { path, lastId: null, wait: MIN_WAIT };
  while (!signal.aborted) {
    await untilVisible(signal);
    try {
      if (await connect(stream, { onEvent, onOpen, onState, signal })) return;
    } catch (error) {
      if (signal.aborted) return;
      if (error.status && !error.isTemporary) throw error; // a retry would be refused, too
    }
    if (signal.aborted) return;
    notify(() => onState?.(false));
    await pause(stream.wait * (0.75 + Math.random() / 2), signal);
    stream.wait = Math.min(MAX_WAIT, 2 * stream.wait);
  }
}

/** Read events from one connection; true if the stream has ended, false if the connection was lost. */
async function connect(stream, { onEvent, onOpen, onState, signal }) {
  const connection = new AbortController();
  const onData = abortWhenSilent(connection);
  abortWhenHidden(connection);
  try {
    const headers = { Accept: "text/event-stream" };
    if (stream.lastId !== null) headers["Last-Event-ID"] = stream.lastId;
    const response = await call("GET", stream.path, { headers, signal: AbortSignal.any([signal, connection.signal]) });
    if (response.status === 204) return true;
    notify(() => onState?.(true));
    notify(() => onOpen?.());
    for await (const event of events(response.body, onData)) {
      if (event.id !== undefined) stream.lastId = event.id;
      stream.wait = MIN_WAIT;
      if (event.data !== "") notify(() => onEvent({ type: event.type, data: JSON.parse(event.data) }));
      if (event.type === "end") return true;
    }
    return false;
  } finally {
    connection.abort();
  }
}

function notify(listener) {
  try {
    listener();
  } catch (error) {
    console.error(error);
  }
}

/** Wait until the tab is visible. */
function untilVisible(signal) {
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

/** Abort a connection after a long silence; call the returned function whenever data arrives. */
function abortWhenSilent(connection) {
  let timer;
  const onData = () => {
    clearTimeout(timer);
    timer = setTimeout(() => connection.abort(), SILENCE);
  };
  connection.signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  onData();
  return onData;
}

/** Abort a connection some time after the tab was hidden, unless it becomes visible before. */
function abortWhenHidden(connection) {
  let timer;
  const onChange = () => {
    clearTimeout(timer);
    if (document.hidden) timer = setTimeout(() => connection.abort(), HIDDEN);
  };
  document.addEventListener("visibilitychange", onChange, { signal: connection.signal });
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

/** The events of a response body (HTML standard, section 9.2.6); `onData` is called for each chunk. */
async function* events(body, onData) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { type: "message", data: [] };
  try {
    while (true) {
      onData();
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line !== "") addLine(event, line);
        else {
          if (event.data.length || event.id !== undefined) yield { ...event, data: event.data.join("\n") };
          event = { type: "message", data: [] };
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Add a line of the stream, which is not empty, to the event that it belongs to. */
function addLine(event, line) {
  if (line.startsWith(":")) return; // a comment
  const colon = line.indexOf(":");
  const field = colon < 0 ? line : line.slice(0, colon);
  const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
  if (field === "event") event.type = text;
  else if (field === "data") event.data.push(text);
  else if (field === "id") event.id = text;
}
