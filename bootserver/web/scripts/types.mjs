// Keeps `src/api/schema.d.ts` equal to the document that the server prints:
//   bootserver openapi > openapi.json
//   npm run types -- openapi.json          writes it
//   npm run check-types -- openapi.json    exit code 1 when it differs

import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";

const FILE = fileURLToPath(new URL("../src/api/schema.d.ts", import.meta.url));
const [act, document] = process.argv.slice(2);
if (!document || (act !== "write" && act !== "check")) {
  console.error("usage: node scripts/types.mjs write|check OPENAPI.json");
  process.exit(2);
}

const ast = await openapiTS(readFileSync(document, "utf8"), {
  alphabetize: true,
  rootTypes: true,
  rootTypesNoSchemaPrefix: true,
  silent: true,
});
const text = `// Made from the server's OpenAPI document by scripts/types.mjs; not to be edited.\n\n${astToString(ast)}`;

if (act === "write") {
  writeFileSync(FILE, text);
} else if (readFileSync(FILE, "utf8") !== text) {
  console.error(
    `${FILE} does not fit ${document}: run \`npm run types -- ${document}\` and see what the page makes of it`,
  );
  process.exit(1);
}
