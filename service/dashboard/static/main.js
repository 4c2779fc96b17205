// Starts the dashboard: opens pages by their address, and signs the user in and out.

import { showConnection } from "./components/connection_banner.js";
import { linkButton } from "./components/layout.js";
import { drawMenu } from "./components/menu.js";
import { errorState, loading } from "./components/states.js";
import { listenToKeys } from "./keyboard.js";
import { addressOf, pathOf } from "./lib/addresses.js";
import { ApiError, get, onUnauthorized } from "./lib/api.js";
import { apiKey, forgetApiKey, isApiKeyEvent } from "./lib/api_key.js";
import { fill, h } from "./lib/dom.js";
import { signIn } from "./pages/sign_in/page.js";
import { routeOf } from "./routes.js";

const RETRY_MILLISECONDS = 2000;
const root = document.getElementById("main");
const isSignedIn = () => apiKey() !== null;

let page = new AbortController(); // aborted when the page is left
let user = null;

// --- pages ---

/** Open a page of the dashboard by its path, with its query. */
function go(path) {
  history.pushState({}, "", addressOf(path));
  const shown = show();
  window.scrollTo(0, 0); // before the page is fetched, because the user may scroll meanwhile
  return shown;
}

async function show() {
  page.abort();
  const { signal } = (page = new AbortController());
  const route = routeOf(pathOf(location.pathname));
  showMenu();
  setTitle(route?.title ?? "Not found");
  if (!route) {
    fill(root, errorState("Page not found", null, overviewLink()));
    return;
  }
  if (!isSignedIn()) {
    signIn(root, { onSignIn });
    return;
  }
  fill(root, loading());
  try {
    const [module] = await Promise.all([loadModule(route), user ?? fetchUser(signal)]);
    if (signal.aborted) return;
    const element = h("div", { class: "page" });
    fill(root, element);
    await module.mount(element, contextOf(route, signal));
  } catch (error) {
    if (signal.aborted || error.name === "AbortError") return;
    if (error.status !== 401) showError(error, signal); // 401 has opened the sign-in page
  }
}

/** The arguments of a page's `mount`, besides its element. */
const contextOf = (route, signal) => ({
  ...route.params,
  user,
  go,
  setTitle,
  keepQuery: (values) => signal.aborted || keepQuery(values), // a page that was left must not change the address
  query: new URLSearchParams(location.search),
  signal,
});

/** Keep state in the query of the address, so that a bookmark restores it. Empty values are removed. */
function keepQuery(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === undefined || value === "" || value === false) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  history.replaceState({}, "", location.pathname + (text ? `?${text}` : ""));
}

/** Load a page's module. A failed download means that kotrain is not responding. */
const loadModule = (route) =>
  route.load().catch((error) => {
    throw error instanceof TypeError ? ApiError.notResponding() : error;
  });

function setTitle(...parts) {
  document.title = [...parts, "kotrain"].join(" \u00b7 ");
}

// --- errors ---

const overviewLink = () => linkButton("Go to the overview", "/");

function showError(error, signal) {
  const isApiError = error instanceof ApiError;
  if (!isApiError) console.error(error);
  if (isApiError && error.isTemporary) {
    fill(root, errorState("kotrain is not responding", "The page will load as soon as it responds.", retryButton()));
    setTimeout(() => signal.aborted || show(), RETRY_MILLISECONDS);
    return;
  }
  const isNotFound = error.status === 404;
  const hasBadQuery = !isApiError && location.search !== "";
  fill(
    root,
    errorState(
      isNotFound ? "Not found" : "The page could not be loaded",
      error.message,
      hasBadQuery ? linkButton("Open the page without its query", pathOf(location.pathname)) : retryButton(),
      isNotFound && overviewLink(),
    ),
  );
}

const retryButton = () => h("button", { type: "button", onclick: show }, "Retry");

// --- links ---

/** Whether a click opens a link of the dashboard in this tab. */
function opensHere(event, link) {
  if (!link || event.defaultPrevented || event.button) return false;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return false;
  if (link.target || link.hasAttribute("download") || link.origin !== location.origin) return false;
  return routeOf(pathOf(link.pathname)) !== undefined;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!opensHere(event, link)) return;
  event.preventDefault();
  if (link.getAttribute("href").startsWith("#")) {
    document.querySelector(link.hash).focus(); // within the page, which must not be mounted again
    return;
  }
  go(pathOf(link.pathname) + link.search);
  root.focus({ preventScroll: true });
});
window.addEventListener("popstate", show);

// --- the user ---

const showMenu = () => drawMenu({ isSignedIn: isSignedIn(), user, signOut: () => signOut("Signed out.") });

async function fetchUser(signal) {
  user = await get("/v1/me", {}, signal);
  showMenu();
}

function onSignIn(signedIn) {
  user = signedIn;
  return show();
}

function signOut(message) {
  forgetApiKey();
  user = null;
  page.abort();
  page = new AbortController();
  showMenu();
  signIn(root, { onSignIn, message });
}

onUnauthorized((message) => signOut(`${message[0].toUpperCase()}${message.slice(1)}.`));
// Another tab has signed in or out, so that this tab shows data of the previous key.
window.addEventListener("storage", (event) => isApiKeyEvent(event) && location.reload());

showConnection();
listenToKeys({ go, isSignedIn });
show();
