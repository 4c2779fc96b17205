// Addresses of kotrain, which a proxy may serve below a prefix, for instance /kotrain.

/** "" without a prefix. */
export const PREFIX = new URL(import.meta.url).pathname.replace(/\/dashboard\/lib\/addresses\.js$/, "");

/** The address of a path of kotrain; other addresses are returned unchanged. */
export const addressOf = (path) => (path.startsWith("/") ? PREFIX + path : path);

/** The path of kotrain at the path of an address. */
export const pathOf = (pathname) =>
  PREFIX && pathname.startsWith(PREFIX) ? pathname.slice(PREFIX.length) || "/" : pathname;
