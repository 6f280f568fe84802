// The client of the HTTP API for Node.js. A call a line on stdin, and its outcome on stdout.

import { createInterface } from "node:readline";

import cent from "cent.js";

for await (const line of createInterface({ input: process.stdin })) {
  const { url, key, method, params } = JSON.parse(line);
  const client = new cent.CentClient({ url, apiKey: key });
  const outcome = await client[method](params).then(
    (result) => ({ result }),
    (error) => ({ error: String(error.message) }),
  );
  process.stdout.write(`${JSON.stringify(outcome)}\n`);
}
