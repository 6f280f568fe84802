// Clients of the official JavaScript SDK, run by a test in another process. Each message in either direction is one text
// of JSON, in which bytes are {"bytes": "<base64>"}. `tests/integration/sdk_js.py` is the other end.

const CLIENT_EVENTS = [
  "connecting", "connected", "disconnected", "error", "message",
  "subscribing", "subscribed", "unsubscribed", "publication", "join", "leave",
];
const ROOM_EVENTS = ["subscribing", "subscribed", "unsubscribed", "publication", "join", "leave", "error"];

/**
 * Returns a function that takes the messages of a test: `client` makes a client and `room` a subscription, `call` calls a
 * method of one or reads a property, and `answer` answers one that asked for a token.
 */
export function clients({ sdks, websockets, eventsource, report }) {
  const objects = new Map();
  const waiting = new Map();
  const tell = (message) => report(encoded(message));
  const asking = (of) => () =>
    new Promise((resolve) => {
      waiting.set(of, resolve);
      tell({ of, event: "token" });
    });

  function watch(key, object, events) {
    objects.set(key, object);
    for (const event of events) object.on(event, (context) => tell({ of: key, event, context }));
  }

  function client({ of, sdk, websocket, url, fetches, options }) {
    class Socket extends websockets[websocket] {
      send(data) {
        tell({ of, event: "frame", context: data });
        super.send(data);
      }
    }
    const getToken = fetches ? asking(of) : null;
    const fallback = Array.isArray(url) ? { eventsource } : {};
    watch(of, new sdks[sdk](url, { ...options, ...fallback, websocket: Socket, getToken }), CLIENT_EVENTS);
  }

  function room({ of, client, name, fetches, options }) {
    const getToken = fetches ? asking(of) : null;
    watch(of, objects.get(client).newSubscription(name, { ...options, getToken }), ROOM_EVENTS);
  }

  async function call({ id, of, method, args }) {
    try {
      const object = objects.get(of);
      const result = typeof object[method] === "function" ? await object[method](...args) : object[method];
      tell({ id, result: result ?? null });
    } catch (error) {
      tell({ id, error: { code: error.code ?? 0, message: error.message, temporary: error.temporary ?? false } });
    }
  }

  const answer = ({ of, token }) => waiting.get(of)(token);
  const orders = { client, room, call, answer };
  return (text) => {
    const message = decoded(text);
    orders[message.do](message);
  };
}

function encoded(message) {
  return JSON.stringify(message, function (key, value) {
    const raw = this[key]; // not `value`: a Buffer of Node.js has been made an object
    return raw instanceof Uint8Array ? { bytes: btoa(String.fromCharCode(...raw)) } : value;
  });
}

function decoded(text) {
  return JSON.parse(text, (_, value) =>
    typeof value?.bytes === "string" ? Uint8Array.from(atob(value.bytes), (char) => char.charCodeAt(0)) : value,
  );
}
