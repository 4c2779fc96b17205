// The public API, called with the key that the reader gave once. Nothing else knows the key.

const SLOW_MILLISECONDS = 8000;
const STORED = "kotrain.key";

/** What the API refused, with the fields it named; `status` 0: nothing answered. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `the API answered ${status}`);
    this.status = status;
    this.title = problem.title ?? "";
    this.fields = problem.errors ?? [];
    this.retryAfter = problem.retryAfter;
  }

  /** Whether nothing answers, or it answers that a part is away: to be tried again. */
  get isAway() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/** The stored key; null where there is none. */
export function key() {
  return localStorage.getItem(STORED);
}

export function keepKey(value) {
  localStorage.setItem(STORED, value);
}

export function forgetKey() {
  localStorage.removeItem(STORED);
}

/** Whether a `storage` event is about the key; `key` is null there when all was cleared. */
export const isKey = (event) => event.key === STORED || event.key === null;

let onRefused = () => {};

/** Call this whenever the API does not know the kept key. */
export function whenRefused(listener) {
  onRefused = listener;
}

/** A key that was only tried, or is another one by now, is no news. */
function tellRefused(error, authorization) {
  if (authorization === `Bearer ${key()}`) onRefused(error.message);
}

let onReached = () => {};

/** Call this after each call with "yes", or "no" where the API could not be reached; "slow" where it takes long. */
export function whenReached(listener) {
  onReached = listener;
}

/** A path with its query; empty values are left out. */
export function withQuery(path, query = {}) {
  const found = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "" && value !== false) found.set(name, value);
  }
  const text = found.toString();
  return text ? `${path}?${text}` : path;
}

/**
 * The answer of a call as a `Response`.
 *
 * Raises `ApiError`; an `AbortError` where `signal` ends it.
 */
export async function call(method, path, { body, headers = {}, signal } = {}) {
  const sent = { Authorization: `Bearer ${key() ?? ""}`, ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  const slow = setTimeout(() => onReached("slow"), SLOW_MILLISECONDS);
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: sent,
      cache: "no-store",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    onReached("no");
    throw new ApiError(0, { detail: "kotrain does not answer" });
  } finally {
    clearTimeout(slow);
  }
  if (!response.ok) throw await refusal(response, sent.Authorization);
  onReached("yes");
  return response;
}

async function refusal(response, authorization) {
  const problem = await response.json().catch(() => ({}));
  const error = new ApiError(response.status, { ...problem, retryAfter: response.headers.get("Retry-After") });
  onReached(error.isAway ? "no" : "yes");
  if (response.status === 401) tellRefused(error, authorization);
  return error;
}

const json = async (method, path, options) => (await call(method, path, options)).json();

export const get = (path, query, signal) => json("GET", withQuery(path, query), { signal });
export const post = (path, body, options = {}) => json("POST", path, { body, ...options });
export const remove = async (path) => void (await call("DELETE", path));

/** Submissions of one form: neither a repeated click nor a lost answer doubles what is sent again unchanged. */
export class Submission {
  #sent;
  #token;

  async send(path, body) {
    const text = JSON.stringify(body);
    if (text !== this.#sent) [this.#sent, this.#token] = [text, token()];
    return post(path, body, { headers: { "Idempotency-Key": this.#token } });
  }
}

function token() {
  const numbers = crypto.getRandomValues(new Uint8Array(16));
  return [...numbers].map((value) => value.toString(16).padStart(2, "0")).join("");
}

/** Save an answer as a file: links cannot carry the key. */
export async function download(path, name) {
  const blob = await (await call("GET", path)).blob();
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Send a file as it is; `onProgress` gets the share that has left. Raises `ApiError`. */
export function upload(path, file, { onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of what it has sent
    const authorization = `Bearer ${key() ?? ""}`;
    request.open("POST", path);
    request.setRequestHeader("Authorization", authorization);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener(
      "progress",
      (event) => event.lengthComputable && onProgress?.(event.loaded / event.total),
    );
    request.addEventListener("load", () => {
      const answer = parsed(request.responseText);
      if (request.status < 300) {
        resolve(answer);
        return;
      }
      const error = new ApiError(request.status, answer);
      if (error.status === 401) tellRefused(error, authorization);
      reject(error);
    });
    request.addEventListener("error", () =>
      reject(new ApiError(0, { detail: "the upload broke off: kotrain does not answer, or refuses the file" })),
    );
    request.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
