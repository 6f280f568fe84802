// Uses the generated module with a client of the endpoint. Ends with an error if anything is not as the types say.
// Arguments: the address of the endpoint, and that of the module with the client.

import { type Live, type LiveError, type LivePublication, type Left, type Said, roomName } from "./live.ts";

declare const process: { argv: [string, string, string, string] };

const [, , url, module] = process.argv;
const { Centrifuge } = (await import(module)) as { Centrifuge: new (url: string, options: object) => Live };

const client: Live = new Centrifuge(url, { data: { source: "test" } });

function same(found: unknown, expected: unknown): void {
  if (JSON.stringify(found) !== JSON.stringify(expected)) {
    throw new Error(`${JSON.stringify(found)} is not ${JSON.stringify(expected)}`);
  }
}

async function refusal(request: Promise<unknown>): Promise<LiveError> {
  return request.then(
    () => {
      throw new Error("was not refused");
    },
    (error: LiveError) => error,
  );
}

client.connect();
await client.ready();

// Methods
const { data: said } = await client.rpc("say", { text: "hello" });
same(said, { text: "hello", nonce: "", at: "2026-01-02T00:00:00Z" });
same((await client.rpc("page")).data, { items: [{ value: 1, children: [] }], next: 2 });
same((await client.rpc("page", 5)).data.next, 6);
same((await client.rpc("pets.first", [{ kind: "cat" }])).data, { kind: "cat", lives: 9 });
same((await client.rpc("switch", { on: true })).data, { name: "x", on: true });
same((await refusal(client.rpc("pets.first", []))).code, 404);
const { data: echoed } = await client.rpc("echo", {
  text: "t",
  number: 1.5,
  flag: true,
  nothing: null,
  anything: { a: [1] },
  when: "2026-01-02T03:04:05Z",
  day: "2026-01-02",
  span: "PT5S",
  uuid: "6f2d4a5e-0b1c-4d3e-8f9a-0b1c2d3e4f5a",
  price: 1.25,
  raw: "bytes",
  url: "https://example.org/",
  color: "blue",
  level: 2,
  choice: null,
  maybe: null,
  numbers: [1],
  pair: [1, "a"],
  many: [],
  none: [],
  options: [1, "b"],
  point: [1, 2],
  by_name: { a: { value: 1, children: [{ value: 2 }] } },
  by_color: { red: 1 },
  by_number: { "7": [{ kind: "dog", friend: { kind: "cat" } }] },
  by_prefix: { "x-a": true },
  meta: { source: "s" },
  place: { city: "Lyon" },
  json_text: "[1, 2]",
  json_value: "any",
  "with-dash": 4,
});
same([echoed.double, echoed["with-dash"], echoed.code, echoed.price], [6, 4, "A", "1.25"]);
same([echoed.point, echoed.place, echoed.json_text], [[1, 2, ""], { city: "Lyon", at: null }, [1, 2]]);
same(echoed.by_name, { a: { value: 1, children: [{ value: 2, children: [] }] } });
same(echoed.by_number, { "7": [{ kind: "dog", friend: { kind: "cat", lives: 9 } }] });

// Messages: a request is handled after the messages before it
await client.send({ method: "mark", data: "first" });
same((await client.rpc("mark", "second")).data ?? null, null);
same((await client.rpc("marks")).data, ["first", "second"]);

// Rooms
const room = roomName("chat:{room}", { room: "lobby" });
same(room, "chat:lobby");
const chat = client.newSubscription(room, { data: 7 });
const arrived: LivePublication<Said | Left>[] = [];
const both = new Promise<void>((resolve) => {
  chat.on("publication", (publication) => {
    if (arrived.push(publication) === 2) resolve();
  });
});
const since = new Promise<number>((resolve) => chat.on("subscribed", ({ data }) => resolve(data.since)));
chat.subscribe();
same(await since, 7);
await chat.publish({ text: "published" });
await client.rpc("publish", room);
await both;
same(
  arrived.map(({ data }) => ("user" in data ? data.user : data.text)),
  ["published", "ann"],
);
same((await chat.history({ limit: -1 })).publications.length, 2);
same(Object.values((await chat.presence()).clients).length, 1);
same((await refusal(chat.publish({} as { text: string }))).code, 422);

same(roomName("a[{]b[}]", {}), "a{b}");
same(roomName("ticket:{number}:{color}:{part:path}", { number: 5, color: "red", part: "a:b" }), "ticket:5:red:a:b");
for (const wrong of ["", "a:b"]) {
  let problem: unknown;
  try {
    roomName("chat:{room}", { room: wrong });
  } catch (error) {
    problem = error;
  }
  same(problem instanceof TypeError && problem.message.includes("chat:{room}: room is"), true);
}

client.disconnect();
