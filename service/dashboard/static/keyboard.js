// Keyboard shortcuts.

import { toast } from "./components/toast.js";
import { MENU } from "./routes.js";

const SEQUENCE_MILLISECONDS = 1500; // between `g` and the letter of a page
const NEW_JOB = "/jobs/new";

const help = () => {
  const pages = MENU.map(({ letter, title }) => `g ${letter} ${title}`);
  return `Keyboard shortcuts: ${pages.join(", ")}, n New job, / Search`;
};

/** Listen to shortcuts. `go` opens an address; shortcuts of pages work only if `isSignedIn()`. */
export function listenToKeys({ go, isSignedIn }) {
  let pressedG = -Infinity;
  document.addEventListener("keydown", (event) => {
    if (event.metaKey || event.ctrlKey || event.altKey || isTyping(event)) return;
    const isSequence = event.timeStamp - pressedG < SEQUENCE_MILLISECONDS;
    const target = isSequence && MENU.find(({ letter }) => letter === event.key);
    pressedG = -Infinity;
    if (target && isSignedIn()) go(target.path);
    else if (event.key === "g") pressedG = event.timeStamp;
    else if (event.key === "n" && isSignedIn()) go(NEW_JOB);
    else if (event.key === "/") focusSearch(event);
    else if (event.key === "?") toast(help());
  });
}

const isTyping = (event) => Boolean(event.target.closest?.("input, textarea, select, [contenteditable]"));

function focusSearch(event) {
  const field = document.querySelector("#main [data-search]");
  if (!field) return;
  event.preventDefault();
  field.focus();
}
