// The pages, their addresses, and the menu.

const ID = "[0-9a-fA-F-]{4,36}"; // or a part that only one id begins or ends with, which the API resolves

const ROUTES = [
  { path: /^\/$/, load: () => import("./pages/overview/page.js"), title: "Overview" },
  { path: /^\/jobs$/, load: () => import("./pages/jobs/page.js"), title: "Jobs" },
  { path: /^\/jobs\/new$/, load: () => import("./pages/new_job/page.js"), title: "New job" },
  { path: new RegExp(`^/jobs/(?<id>${ID})$`), load: () => import("./pages/job/page.js"), title: "Job" },
  { path: /^\/comparisons$/, load: () => import("./pages/comparisons/page.js"), title: "Comparisons" },
  { path: /^\/comparisons\/new$/, load: () => import("./pages/new_comparison/page.js"), title: "New comparison" },
  {
    path: new RegExp(`^/comparisons/(?<id>${ID})$`),
    load: () => import("./pages/comparison/page.js"),
    title: "Comparison",
  },
  { path: /^\/leaderboard$/, load: () => import("./pages/leaderboard/page.js"), title: "Leaderboard" },
  { path: /^\/data$/, load: () => import("./pages/data/page.js"), title: "Data sets" },
  { path: /^\/code$/, load: () => import("./pages/code/page.js"), title: "Code" },
  { path: /^\/keys$/, load: () => import("./pages/keys/page.js"), title: "Keys" },
];

/** The menu: path, title, and the letter that leads there after `g`. */
export const MENU = [
  { path: "/", title: "Overview", letter: "o" },
  { path: "/jobs", title: "Jobs", letter: "j" },
  { path: "/comparisons", title: "Comparisons", letter: "c" },
  { path: "/leaderboard", title: "Leaderboard", letter: "l" },
  { path: "/data", title: "Data sets", letter: "d" },
  { path: "/code", title: "Code", letter: "p" },
  { path: "/keys", title: "Keys", letter: "k" },
];

/** The page at a path, with the `params` in the path; undefined for unknown paths. */
export function routeOf(pathname) {
  for (const route of ROUTES) {
    const match = route.path.exec(pathname);
    if (match) return { ...route, params: match.groups };
  }
  return undefined;
}
