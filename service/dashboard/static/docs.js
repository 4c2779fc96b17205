/** The API reference: Swagger UI, drawn from the server's OpenAPI document. */

import { addressOf } from "./lib/addresses.js";

document.documentElement.classList.toggle("dark-mode", matchMedia("(prefers-color-scheme: dark)").matches);
window.SwaggerUIBundle({
  url: addressOf("/openapi.json"),
  dom_id: "#docs",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
