/** The API reference: Swagger UI, drawn from the server's OpenAPI document. */

const isKey = (parameter) => parameter.name === "authorization";

const spec = await (await fetch("/openapi.json")).json();
// Swagger UI never sends a header parameter `Authorization`; a security scheme gives it the button for the key.
spec.components.securitySchemes = { key: { type: "http", scheme: "bearer", description: "API key" } };
for (const operation of Object.values(spec.paths).flatMap((path) => Object.values(path))) {
  operation.security = operation.parameters?.some(isKey) ? [{ key: [] }] : [];
  operation.parameters = operation.parameters?.filter((parameter) => !isKey(parameter));
}

document.documentElement.classList.toggle("dark-mode", matchMedia("(prefers-color-scheme: dark)").matches);
window.SwaggerUIBundle({ spec, dom_id: "#docs", deepLinking: true, defaultModelsExpandDepth: 0, validatorUrl: null });
