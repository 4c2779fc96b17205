// The API key, stored in this browser only.

const STORED = "kotrain.key";

/** The stored key; null without one. */
export const apiKey = () => localStorage.getItem(STORED);

export const storeApiKey = (value) => localStorage.setItem(STORED, value);

export const forgetApiKey = () => localStorage.removeItem(STORED);

/** Whether a `storage` event of another tab is about the key; its `key` is null if the whole storage was cleared. */
export const isApiKeyEvent = (event) => event.key === STORED || event.key === null;
