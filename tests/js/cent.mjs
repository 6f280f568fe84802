// The client of the HTTP API for Node.js: node cent.mjs URL KEY. A call a line on stdin, and its outcome on stdout.

import { createInterface } from "node:readline";

import cent from "cent.js";

const [url, apiKey] = process.argv.slice(2);
const client = new cent.CentClient({ url, apiKey });

for await (const line of createInterface({ input: process.stdin })) {
  const [method, params] = JSON.parse(line);
  const outcome = await client[method](params).then(
    (result) => ({ result }),
    (error) => ({ error: String(error.message) }),
  );
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}
