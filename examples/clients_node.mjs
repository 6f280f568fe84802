import { Centrifuge } from "centrifuge";

async function getToken() {
  const response = await fetch("http://localhost:8000/token?name=bob", { method: "POST" });
  if (!response.ok) throw new Error(`no token: ${response.status}`); // the SDK tries again
  return response.json();
}

const client = new Centrifuge("ws://localhost:8000/live", { getToken });
client.on("disconnected", ({ code, reason }) => console.log(`over: ${reason} (${code})`)); // it does not reconnect
const chat = client.newSubscription("chat:lobby");
chat.on("publication", ({ data }) => console.log(`${data.user_id}: ${data.text}`));
chat.subscribe();
client.connect();
await chat.ready();

await client.rpc("say", { room: "lobby", text: "Hello from Node.js" });
try {
  await client.rpc("say", { room: "lobby", text: "" });
} catch (error) {
  console.log(error.code, error.message); // 422 text: String should have at least 1 character
}
