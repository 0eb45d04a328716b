"use strict";

// A hundred kinds in each other are more than a page can draw, and than anyone would read: the
// catalogues have them. The document itself has them all.
function withoutKinds(document) {
  for (const schema of Object.values(document.components.schemas)) {
    if (schema.discriminator) {
      const kinds = Object.keys(schema.discriminator.mapping);
      schema.description += ` The kinds: ${kinds.join(", ")}.`;
      delete schema.oneOf;
      delete schema.discriminator;
      schema.type = "object";
    }
  }
  return document;
}

async function show() {
  const answer = await fetch("openapi.json"); // beside the page, wherever a proxy has put both
  SwaggerUIBundle({
    spec: withoutKinds(await answer.json()),
    dom_id: "#calls",
    deepLinking: true,
    defaultModelsExpandDepth: -1,
    syntaxHighlight: false,
  });
}

show();
