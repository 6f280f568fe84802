// Lines that must compile, and mistakes that must not: the compiler refuses a @ts-expect-error without an error.

import { Centrifuge } from "centrifuge";
import { Centrifuge as Ours } from "/hubbub/hubbub.js";
import type {
  CatInput,
  EverythingInput,
  EverythingOutput,
  Live,
  LiveError,
  LiveGiven,
  LiveMethods,
  LiveRoomName,
  LiveRoomOf,
  LiveRooms,
  LiveSubscription,
  Said,
} from "./live.ts";
import { roomName } from "./live.ts";

declare const text: string;
declare const number: number;
declare const everything: EverythingInput;

const client: Live = new Centrifuge("/live");
const ours: Live = new Ours("/live");

// Methods
const { data: said } = await client.rpc("say", { text });
const at: string = said.at;
await ours.rpc("page");
await client.rpc("page", 2);
await client.rpc("marks");
const pet = (await client.rpc("pets.first", [{ kind: "dog" }, { kind: "cat" }])).data;
if (pet.kind === "cat") pet.lives.toFixed();
const echoed: EverythingOutput = (await client.rpc("echo", everything)).data;
const twice: number = echoed.double + echoed.by_name["a"]!.children[0]!.value;
await client.rpc("echo", { ...everything, color: "red", level: 2, none: [], point: [1, 2], by_color: { blue: 1 } });
// @ts-expect-error  no such method
await client.rpc("shout", { text });
// @ts-expect-error  a request is missing
await client.rpc("say");
// @ts-expect-error  a property is missing
await client.rpc("say", { nonce: text });
// @ts-expect-error  another type
await client.rpc("page", text);
// @ts-expect-error  takes nothing
await client.rpc("marks", 1);
// @ts-expect-error  no such property
said.id;
// @ts-expect-error  the tag is missing, which has a default
await client.rpc("pets.first", [{ lives: 3 }]);
const cat: CatInput = { lives: 3 };
// @ts-expect-error  not an enum's value
await client.rpc("echo", { ...everything, color: "green" });
// @ts-expect-error  too short
await client.rpc("echo", { ...everything, pair: [1] });
// @ts-expect-error  no reply
(await client.rpc("mark", "a")).data.length;

// Messages
await client.send({ method: "mark", data: text });
await client.send({ method: "marks" });
await client.send({ method: "page" });
// @ts-expect-error  no data
await client.send({ method: "mark" });
// @ts-expect-error  another method's data
await client.send({ method: "mark", data: { text } });

// Rooms
const chat = client.newSubscription(`chat:${text}`);
chat
  .on("publication", ({ data, info, offset }) => {
    if ("user" in data) data.user.trim();
    else data.at.trim();
    // @ts-expect-error  not of all messages
    data.at;
    return [info?.connInfo?.name, offset];
  })
  .on("subscribed", ({ wasRecovering, recovered, data }) => [wasRecovering && recovered, data.since])
  .once("join", ({ info }) => info.user)
  .subscribe();
await chat.publish({ text });
const { publications } = await chat.history({ limit: 10 });
for (const { data } of publications) "user" in data;
Object.values((await chat.presence()).clients).map(({ user }) => user);
ours.newSubscription(`chat:${text}`, { data: 3, getToken: async () => "" });
ours.newSubscription(`chat:${text}:staff`, { data: text }).on("publication", ({ data }) => data.on);
ours.newSubscription(`chat:${text}:staff`, { getData: async () => text });
const ticket = ours.newSubscription(`ticket:${number}:red:a:b`);
ticket.on("publication", ({ data }) => data.children);
ours.newSubscription(roomName("ticket:{number}:{color}:{part:path}", { number: 1, color: "red", part: "a:b" }));
ours.newSubscription(roomName("news", {})).on("publication", ({ data: {} }) => {});
ours.newSubscription("a{b}").on("publication", ({ data }) => data.trim());
ours.newSubscription(`log\`\${${text}`);
const twin = ours.newSubscription(roomName("twin:{name:path}", { name: "a:b" }));
twin.on("publication", ({ data }) => "value" in data ? data.value : data.on);
// @ts-expect-error  perhaps a message of the other pattern, of which the names have the same type
twin.on("publication", ({ data }) => data.value);
ours.newSubscription(roomName("a[{]b[}]", {})).on("publication", ({ data }) => data.trim());
const label: string = echoed.point[2];
// @ts-expect-error  no such room
ours.newSubscription("nowhere");
// @ts-expect-error  a parameter is a number
ours.newSubscription(`ticket:${text}:red:a`);
// @ts-expect-error  not an enum's value
ours.newSubscription(`ticket:${number}:green:a`);
ours.newSubscription(`chat:${text}:staff`).setData(text);
// @ts-expect-error  data of another type
ours.newSubscription(`chat:${text}`, { data: text });
// @ts-expect-error  nothing may be published
await ticket.publish({ value: 1 });
// @ts-expect-error  another type
await chat.publish({ text: 1 });
// @ts-expect-error  no such event
chat.on("publications", () => {});
// @ts-expect-error  no such pattern
roomName("chat", { room: text });
// @ts-expect-error  no such parameter
roomName("chat:{room}", { rom: text });
// @ts-expect-error  a parameter of another type
roomName("ticket:{number}:{color}:{part:path}", { number: "1", color: "red", part: "a" });
// @ts-expect-error  a pattern that can't be filled in
roomName("log`$[{]*", {});

// The client
await client.publish(`chat:${text}`, { text });
const { publications: found } = await client.history("news", { limit: 1 });
client.getSubscription(`chat:${text}`)?.publish({ text });
client.removeSubscription(chat);
for (const each of Object.values(client.subscriptions())) each.unsubscribe();
client.setData({ source: text });
if (client.state === "connected") client.disconnect();
client.on("connected", ({ client: id, data }) => [id, data]).on("error", ({ error }) => error.code);
client.on("publication", ({ channel, data }) => [channel, data]);
// @ts-expect-error  not the type of the function that runs on connect
client.setData({});
// @ts-expect-error  nothing may be published
await client.publish("news", {});

// Names for an app's own functions
function call<Method extends keyof LiveMethods>(method: Method, ...data: LiveGiven<LiveMethods[Method]["request"]>) {
  return client.rpc(method, ...data);
}
call("marks");
(await call("say", { text })).data.at.trim();
function listen<Name extends LiveRoomName>(name: Name, show: (data: LiveRoomOf<Name>["publication"]) => void) {
  const subscription = client.newSubscription(name);
  subscription.on("publication", ({ data }) => show(data)).subscribe();
  return () => client.removeSubscription(subscription);
}
listen("a{b}", (data) => data.trim());
// @ts-expect-error  another type
listen("a{b}", (data: number) => data);
const codes: LiveMethods["echo"]["errors"] = 409;
const failed = (error: LiveError) => error.temporary ?? error.code < 100;
const show = (room: LiveSubscription<LiveRooms["chat:{room}"]>) => room.publish({ text });
show(chat);
// @ts-expect-error  another room
show(ticket);

export { at, cat, codes, echoed, failed, found, label, said, twice };
export type { Said };
