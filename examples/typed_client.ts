// A client of examples/endpoints.py. The types are generated: hubbub types examples.endpoints:app --out live.ts

import { Centrifuge } from "centrifuge";
import { type Live, roomName } from "./live";

const client: Live = new Centrifuge("ws://localhost:8000/live?name=ann");
const chat = client.newSubscription(roomName("chat:{room}", { room: "lobby" }));
chat.on("publication", ({ data }) => console.log(data.user_id, data.text)); // data is a Said
chat.subscribe();
client.connect();

const { data } = await client.rpc("say", { room: "lobby", text: "hello" }); // data is a Said, too
console.log(data.text);
