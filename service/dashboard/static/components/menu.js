// The top bar: menu, user and the most frequent actions.

import { pathOf } from "../lib/addresses.js";
import { fill, h } from "../lib/dom.js";
import { MENU } from "../routes.js";

/** Draw the bar for the current address; without a stored key, `isSignedIn` is false and the bar empty. */
export function drawMenu({ isSignedIn, user, signOut }) {
  fill(document.getElementById("pages"), isSignedIn && MENU.map(menuLink));
  // On a narrow screen, the menu scrolls.
  document.querySelector('#pages [aria-current="page"]')?.scrollIntoView({ block: "nearest", inline: "nearest" });
  fill(document.getElementById("who"), isSignedIn && userActions(user, signOut));
}

function menuLink({ path, title }) {
  const pathname = pathOf(location.pathname);
  const isCurrent = pathname === path || (path !== "/" && pathname.startsWith(`${path}/`));
  return h("a", { href: path, "aria-current": isCurrent ? "page" : null }, title);
}

const userActions = (user, signOut) => [
  h("a", { class: "button primary small", href: "/jobs/new" }, "New job"),
  h("a", { class: "button small extra", href: "/comparisons/new" }, "Compare"),
  user && h("span", { class: "user", title: user.is_admin ? "administrator" : "" }, user.user),
  h("button", { class: "quiet small", type: "button", onclick: signOut }, "Sign out"),
];
