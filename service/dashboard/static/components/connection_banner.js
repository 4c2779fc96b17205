// A banner that is shown while the API does not respond.

import { onConnection } from "../lib/api.js";

const MESSAGES = {
  offline: "kotrain is not responding. The data shown may be out of date; retrying \u2026",
  slow: "kotrain is responding slowly. The data shown may be out of date; waiting \u2026",
};

export function showConnection() {
  const banner = document.getElementById("connection");
  onConnection((state) => {
    banner.hidden = state === "online";
    if (MESSAGES[state]) banner.textContent = MESSAGES[state];
  });
}
