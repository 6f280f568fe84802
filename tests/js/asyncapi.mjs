// Parses AsyncAPI documents with the official parser: node asyncapi.mjs FILE...
// Prints what it finds in each, as one JSON list of lists of lines.

import { readFileSync } from "node:fs";

import parser from "@asyncapi/parser";

// We write 3.0.0, which more tools read than the latest version.
const rules = { rules: { "asyncapi-latest-version": "off" } };
const found = [];
const { Parser } = parser;
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await new Parser({ ruleset: rules }).parse(readFileSync(file, "utf8"));
  const lines = diagnostics.map(({ code, message, path }) => `${code}: ${message} (${path.join(" > ")})`);
  found.push(document ? lines : ["it is no document", ...lines]);
}
console.log(JSON.stringify(found));
