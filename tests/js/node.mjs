// The clients in Node.js: a message a line, on stdin and stdout.

import { createInterface } from "node:readline";

import { Centrifuge as Json } from "centrifuge";
import { Centrifuge as Protobuf } from "centrifuge/build/protobuf";
import { WebSocket as Ws } from "ws";

import { Centrifuge as Ours } from "../../src/hubbub/client/hubbub.js";
import { clients } from "./clients.mjs";
import { EventSource } from "./eventsource.mjs";

const take = clients({
  sdks: { json: Json, protobuf: Protobuf, ours: Ours },
  websockets: { builtin: globalThis.WebSocket, ws: Ws },
  eventsource: EventSource,
  report: (text) => process.stdout.write(`${text}\n`),
});
createInterface({ input: process.stdin }).on("line", take).on("close", () => process.exit());
