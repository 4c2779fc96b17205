// The API key, stored in this browser only.

import { PREFIX } from "./addresses.js";

const STORED = `kotrain.key${PREFIX}`; // another kotrain may be served below another prefix

/** The stored key; null without one. */
export const apiKey = () => localStorage.getItem(STORED);

export const storeApiKey = (value) => localStorage.setItem(STORED, value);

export const forgetApiKey = () => localStorage.removeItem(STORED);

/** Whether a `storage` event of another tab is about the key; its `key` is null if the whole storage was cleared. */
export const isApiKeyEvent = (event) => event.key === STORED || event.key === null;
