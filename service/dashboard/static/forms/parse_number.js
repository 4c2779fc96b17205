// Parse typed numbers.

const DECIMAL = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

/**
 * A typed decimal number. Other text is returned unchanged, so that the API rejects it and says what is valid: `Number`
 * would accept 0x10 and Infinity, and lose digits of large integers.
 */
export function parseNumber(text) {
  const trimmed = text.trim();
  const decimal = trimmed.replace(/\u2212/g, "-");
  const value = Number(decimal);
  const isExact = Number.isSafeInteger(value) || /[.e]/i.test(decimal);
  return DECIMAL.test(decimal) && Number.isFinite(value) && isExact ? value : trimmed;
}

/** Numbers separated by commas. */
export const parseNumbers = (text) => text.split(",").map(parseNumber);
