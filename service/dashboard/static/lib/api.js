// The public HTTP API, called with the stored key.

import { addressOf } from "./addresses.js";
import { apiKey } from "./api_key.js";

const SLOW_MILLISECONDS = 8000;
const NOT_RESPONDING = "kotrain is not responding";

/** A refused request and the fields named in the answer; `status` is 0 if there was no answer. */
export class ApiError extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `HTTP status ${status}`);
    this.status = status;
    this.fields = problem.errors ?? [];
  }

  /** The error of a request that got no answer. */
  static notResponding(detail = NOT_RESPONDING) {
    return new ApiError(0, { detail });
  }

  /** Whether a retry may succeed: there was no answer, or a part of the service is unavailable. */
  get isTemporary() {
    return [0, 502, 503, 504].includes(this.status);
  }
}

const listeners = { unauthorized: () => {}, connection: () => {} };

/** Call `listener` with the API's message when the stored key is rejected. */
export function onUnauthorized(listener) {
  listeners.unauthorized = listener;
}

/** Call `listener` after each request with "online" or "offline", and with "slow" while an answer takes long. */
export function onConnection(listener) {
  listeners.connection = listener;
}

const authorization = () => `Bearer ${apiKey() ?? ""}`;

/** Report a rejected key if it is the stored one; others were only being tried, or have been replaced. */
function reportUnauthorized(error, sent) {
  if (sent === authorization()) listeners.unauthorized(error.message);
}

/** A path with its query; empty values are omitted. */
export function withQuery(path, query = {}) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (Array.isArray(value)) for (const item of value) search.append(name, item);
    else if (value !== null && value !== undefined && value !== "" && value !== false) search.set(name, value);
  }
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

/**
 * Send a request and return its `Response`.
 *
 * Throws `ApiError`, or an `AbortError` if `signal` aborts.
 */
export async function call(method, path, { body, headers = {}, signal } = {}) {
  const sent = { Authorization: authorization(), ...headers };
  const options = { method, signal, headers: sent, cache: "no-store" };
  if (body !== undefined) {
    sent["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  const slow = setTimeout(() => listeners.connection("slow"), SLOW_MILLISECONDS);
  try {
    response = await fetch(addressOf(path), options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    listeners.connection("offline");
    throw ApiError.notResponding();
  } finally {
    clearTimeout(slow);
  }
  if (!response.ok) throw await refusal(response, sent.Authorization);
  listeners.connection("online");
  return response;
}

async function refusal(response, sent) {
  const error = new ApiError(response.status, await response.json().catch(() => ({})));
  listeners.connection(error.isTemporary ? "offline" : "online");
  if (response.status === 401) reportUnauthorized(error, sent);
  return error;
}

const json = async (method, path, options) => (await call(method, path, options)).json();

export const get = (path, query, signal) => json("GET", withQuery(path, query), { signal });
export const post = (path, body, options = {}) => json("POST", path, { body, ...options });
export const change = (path, body) => json("PATCH", path, { body });
export const remove = async (path) => void (await call("DELETE", path));

/** Submits a form once: after a second click or a lost answer, an unchanged body has the same idempotency key. */
export class Submission {
  #body;
  #key;

  async send(path, body) {
    const text = JSON.stringify(body);
    if (text !== this.#body) [this.#body, this.#key] = [text, randomKey()];
    return post(path, body, { headers: { "Idempotency-Key": this.#key } });
  }
}

/** 128 random bits in hexadecimal; `crypto.randomUUID` exists over HTTPS only. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (value) => value.toString(16).padStart(2, "0")).join("");
}

/** Save an answer as a file; a link could not send the API key. */
export async function download(path, name) {
  const blob = await (await call("GET", path)).blob();
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Upload a file unchanged; `onProgress` gets the share sent, from 0 to 1. Throws `ApiError`. */
export function upload(path, file, { onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch reports no upload progress
    const sent = authorization();
    request.open("POST", addressOf(path));
    request.setRequestHeader("Authorization", sent);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.addEventListener(
      "progress",
      (event) => event.lengthComputable && onProgress?.(event.loaded / event.total),
    );
    request.addEventListener("load", () => {
      const answer = jsonOrEmpty(request.responseText);
      if (request.status < 300) {
        resolve(answer);
        return;
      }
      const error = new ApiError(request.status, answer);
      if (error.status === 401) reportUnauthorized(error, sent);
      reject(error);
    });
    request.addEventListener("error", () =>
      reject(ApiError.notResponding(`the upload was interrupted: ${NOT_RESPONDING} or rejected the file`)),
    );
    request.addEventListener("abort", () => reject(new DOMException("cancelled", "AbortError")));
    signal?.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

function jsonOrEmpty(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
