// Python source with colors for its comments, texts, keywords and numbers.

import { h } from "../../lib/dom.js";

const KEYWORDS =
  "and as assert async await break class continue def del elif else except finally for from global if import in is " +
  "lambda nonlocal not or pass raise return try while with yield None True False";
const TOKENS = new RegExp(
  [
    "(?<comment>#[^\\n]*)",
    "(?<text>[rbfuRBFU]{0,2}(?:\"\"\"[\\s\\S]*?(?:\"\"\"|$)|'''[\\s\\S]*?(?:'''|$)|\"(?:\\\\.|[^\"\\\\\\n])*\"?|'(?:\\\\.|[^'\\\\\\n])*'?))",
    `(?<keyword>\\b(?:${KEYWORDS.replaceAll(" ", "|")})\\b)`,
    "(?<number>\\b\\d[\\w.]*(?:(?<=[eE])[+-]\\d+)?)",
    "(?<word>\\w+)",
  ].join("|"),
  "g",
);
const COLORED = ["comment", "text", "keyword", "number"];

/** The source in a frame; each colored part is an element of its own. */
export function highlighted(source) {
  const parts = [];
  let end = 0;
  for (const match of source.matchAll(TOKENS)) {
    const kind = COLORED.find((name) => match.groups[name] !== undefined);
    if (!kind) continue;
    parts.push(source.slice(end, match.index), h("span", { class: `py-${kind}` }, match[0]));
    end = match.index + match[0].length;
  }
  return h("pre", { class: "code" }, h("code", {}, [...parts, source.slice(end)]));
}
