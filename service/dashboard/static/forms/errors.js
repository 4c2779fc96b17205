// Show the API's field errors, `{pointer, detail}`, at their fields.

/** The details of errors as one text; null without errors. */
export const details = (errors) => errors.map((error) => error.detail).join("; ") || null;

/** Errors that no field can show, each with its pointer. */
export const withPointers = (errors) => errors.map((error) => `${error.pointer} ${error.detail}`).join("; ");

/** Show each error at the field named by the first part of its pointer; return those without a field. */
export function showFieldErrors(fields, errors) {
  const nameIn = (error) => error.pointer.split("/")[1];
  for (const field of fields) field.setError(details(errors.filter((error) => nameIn(error) === field.name)));
  return errors.filter((error) => !fields.some((field) => field.name === nameIn(error)));
}

/** The errors at or below a pointer, relative to it. */
export function errorsBelow(errors, prefix) {
  return errors
    .filter((error) => isBelow(error, prefix))
    .map((error) => ({ ...error, pointer: error.pointer.slice(prefix.length) || "/" }));
}

const isBelow = ({ pointer }, prefix) => pointer === prefix || pointer.startsWith(`${prefix}/`);

/** Hand errors to the `showErrors` of the parts of a form, by their names; return those that no part shows. */
export function showPartErrors(parts, errors) {
  let rest = errors;
  for (const [name, part] of Object.entries(parts)) {
    const prefix = `/${name}`;
    const unshown = part.showErrors(errorsBelow(rest, prefix));
    rest = rest
      .filter((error) => !isBelow(error, prefix))
      .concat(unshown.map((error) => ({ ...error, pointer: `${prefix}${error.pointer}` })));
  }
  return rest;
}
