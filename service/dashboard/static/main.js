// The frame around every page: addresses, the key, whether kotrain answers, and the keyboard.

import { ApiError, forgetKey, get, isKey, key, whenReached, whenRefused } from "./lib/api.js";
import { fill, h } from "./lib/dom.js";
import { problem, toast, waiting } from "./components/parts.js";
import { askForKey } from "./pages/sign_in/page.js";

const UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const PAGES = [
  { path: /^\/$/, load: () => import("./pages/overview/page.js"), title: "Overview" },
  { path: /^\/jobs$/, load: () => import("./pages/jobs/page.js"), title: "Jobs" },
  { path: /^\/jobs\/new$/, load: () => import("./pages/new_job/page.js"), title: "New job" },
  { path: new RegExp(`^/jobs/(?<id>${UUID})$`), load: () => import("./pages/job/page.js"), title: "Job" },
  { path: /^\/comparisons$/, load: () => import("./pages/comparisons/page.js"), title: "Comparisons" },
  { path: /^\/comparisons\/new$/, load: () => import("./pages/new_comparison/page.js"), title: "New comparison" },
  {
    path: new RegExp(`^/comparisons/(?<id>${UUID})$`),
    load: () => import("./pages/comparison/page.js"),
    title: "Comparison",
  },
  { path: /^\/leaderboard$/, load: () => import("./pages/leaderboard/page.js"), title: "Leaderboard" },
  { path: /^\/data$/, load: () => import("./pages/data/page.js"), title: "Data sets" },
  { path: /^\/keys$/, load: () => import("./pages/keys/page.js"), title: "Keys" },
];
const MENU = [
  ["/", "Overview", "o"],
  ["/jobs", "Jobs", "j"],
  ["/comparisons", "Comparisons", "c"],
  ["/leaderboard", "Leaderboard", "l"],
  ["/data", "Data sets", "d"],
  ["/keys", "Keys", "k"],
];

const main = document.getElementById("main");
let leaving = new AbortController();
let user = null;

// --- addresses ---

/** Go to an address of the dashboard. */
export function go(address, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"]({}, "", address);
  const shown = show();
  window.scrollTo(0, 0); // at once: who scrolls while the page fetches what it needs is not taken back
  return shown;
}

/** Put state into the address without a new page: it can be bookmarked, and Back leaves the page. */
function keepQuery(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === "" || value === false) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  history.replaceState({}, "", location.pathname + (text ? `?${text}` : ""));
}

async function show() {
  leaving.abort();
  const here = (leaving = new AbortController());
  const found = PAGES.map((page) => ({ ...page, match: page.path.exec(location.pathname) })).find((page) => page.match);
  showMenu();
  setTitle(found?.title ?? "Not found");
  if (!found) {
    fill(main, problem("There is no such page", [h("a", { href: "/" }, "Go to the overview")]));
    return;
  }
  if (key() === null) {
    askForKey(main, { onKnown: signedIn });
    return;
  }
  fill(main, waiting());
  try {
    const [page] = await Promise.all([loaded(found), user ?? whoIsIt(here.signal)]);
    if (here.signal.aborted) return;
    const root = h("div", { class: "page" });
    const context = {
      ...found.match.groups,
      user,
      go,
      setTitle,
      keepQuery: (values) => here.signal.aborted || keepQuery(values), // a page that was left has no address any more
      query: new URLSearchParams(location.search),
      signal: here.signal,
    };
    fill(main, root);
    await page.mount(root, context);
  } catch (error) {
    if (here.signal.aborted || error.name === "AbortError") return;
    if (error.status === 401) return; // the key is asked for already
    showError(error, here);
  }
}

/** A page's module; one that cannot be fetched means that kotrain is away. */
const loaded = (page) =>
  page.load().catch((error) => {
    throw error instanceof TypeError ? new ApiError(0, { detail: "kotrain does not answer" }) : error;
  });

function showError(error, here) {
  const isAway = error instanceof ApiError && error.isAway;
  if (!(error instanceof ApiError)) console.error(error);
  const title = isAway
    ? "kotrain does not answer"
    : error.status === 404
      ? "There is no such thing"
      : "This went wrong";
  const isAddress = !(error instanceof ApiError) && location.search !== "";
  const again = isAddress
    ? h("a", { class: "button", href: location.pathname }, "Open the page without the rest of its address")
    : h("button", { type: "button", onclick: show }, "Try again");
  const home = error.status === 404 && h("a", { class: "button", href: "/" }, "Go to the overview");
  const box = problem(title, [isAway ? "The page comes back by itself once it does." : error.message], again, home);
  fill(main, box);
  if (isAway) setTimeout(() => here.signal.aborted || show(), 2000);
}

function setTitle(...parts) {
  document.title = [...parts, "kotrain"].join(" \u00b7 ");
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (
    !link ||
    event.defaultPrevented ||
    event.button ||
    event.metaKey ||
    event.ctrlKey ||
    event.shiftKey ||
    event.altKey
  )
    return;
  if (link.target || link.hasAttribute("download") || link.origin !== location.origin) return;
  if (!PAGES.some((page) => page.path.test(link.pathname))) return;
  event.preventDefault();
  if (link.getAttribute("href").startsWith("#")) {
    document.querySelector(link.hash).focus(); // within the page, which a new address would mount anew
    return;
  }
  go(link.pathname + link.search);
  main.focus({ preventScroll: true });
});
window.addEventListener("popstate", show);

// --- who is it ---

async function whoIsIt(signal) {
  user = await get("/v1/me", {}, signal);
  showMenu();
  return user;
}

function signedIn(found) {
  user = found;
  return show();
}

function signOut(why) {
  forgetKey();
  user = null;
  leaving.abort();
  leaving = new AbortController();
  showMenu();
  askForKey(main, { onKnown: signedIn, why });
}

whenRefused((why) => signOut(`${why[0].toUpperCase()}${why.slice(1)}.`));
// Another tab signed out, or in as somebody else: this one shows what belongs to the key that was.
window.addEventListener("storage", (event) => isKey(event) && location.reload());

function showMenu() {
  const isSignedIn = key() !== null;
  const isCurrent = (path) => location.pathname === path || (path !== "/" && location.pathname.startsWith(`${path}/`));
  fill(
    document.getElementById("pages"),
    isSignedIn &&
      MENU.map(([path, name]) => h("a", { href: path, "aria-current": isCurrent(path) ? "page" : null }, name)),
  );
  // On a narrow screen the menu scrolls.
  document.querySelector('#pages [aria-current="page"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
  fill(
    document.getElementById("who"),
    isSignedIn && [
      h("a", { class: "button primary small", href: "/jobs/new" }, "New job"),
      h("a", { class: "button small extra", href: "/comparisons/new" }, "Compare"),
      user && h("span", { class: "user", title: user.is_admin ? "an administrator" : "" }, user.user),
      h("button", { class: "quiet small", type: "button", onclick: () => signOut("Signed out.") }, "Sign out"),
    ],
  );
}

// --- whether it answers ---

const connection = document.getElementById("connection");
const TROUBLES = {
  no: "kotrain does not answer. What you see may be old; trying again \u2026",
  slow: "kotrain takes long to answer. What you see may be old; waiting \u2026",
};
whenReached((how) => {
  connection.hidden = how === "yes";
  if (TROUBLES[how]) connection.textContent = TROUBLES[how];
});

// --- the keyboard ---

let pressedG = 0;
document.addEventListener("keydown", (event) => {
  if (
    event.metaKey ||
    event.ctrlKey ||
    event.altKey ||
    event.target.closest?.("input, textarea, select, [contenteditable]")
  )
    return;
  const target = event.timeStamp - pressedG < 1500 && MENU.find(([, , letter]) => letter === event.key);
  pressedG = 0;
  if (target && key() !== null) go(target[0]);
  else if (event.key === "g") pressedG = event.timeStamp;
  else if (event.key === "n" && key() !== null) go("/jobs/new");
  else if (event.key === "/") focusOn("[data-search]", event);
  else if (event.key === "?")
    toast(`Keys: ${MENU.map(([, name, letter]) => `g ${letter} ${name}`).join(", ")}, n new job, / search`);
});

function focusOn(selector, event) {
  const field = main.querySelector(selector);
  if (field) {
    event.preventDefault();
    field.focus();
  }
}

show();
