// The page's connection to the endpoint, and what the status line says about it.

import { Centrifuge } from "/hubbub/hubbub.js";
import * as notifications from "./notifications.js";
import { onSignOut, token } from "./session.js";
import * as status from "./status.js";

// What the status line says once the page is in all its rooms: the worst of what happened in one of them.
const OUTCOMES = [
  "Connected",
  "Reconnected: nothing was missed",
  "Reconnected: you have received what you missed",
  "Reconnected: more was missed than the server keeps",
  "Reconnected: the server was restarted and its history was reset",
];
const [FRESH, NOTHING, RECOVERED, TOO_MUCH, RESTARTED] = OUTCOMES.keys();

// Without a getToken, because a demo without passwords can't renew a token.
/** @type {import("./endpoint").Live} */
export const client = new Centrifuge("/live", { token: token() ?? "", maxReconnectDelay: 5_000 });
/** @type {Map<string, string | undefined>} */
const epochs = new Map(); // the numbering of each room's messages: a restarted server begins another one
let outcome = FRESH;

/** Connects the page. It has made its subscriptions before. */
export function connect() {
  for (const subscription of Object.values(client.subscriptions())) {
    subscription.on("subscribed", arrived);
    subscription.on("unsubscribed", ({ reason }) => {
      status.stopped(reason);
      client.disconnect();
    });
  }
  onSignOut(() => {
    client.disconnect();
    status.signedOut("you signed out");
  });
  client.connect();
}

/**
 * Returns whether a room that was joined again is one of a restarted server.
 * @param {import("./endpoint").LiveSubscribed} context
 */
export function isRestarted({ channel, streamPosition }) {
  return epochs.get(channel) !== streamPosition?.epoch;
}

client.on("connecting", ({ code }) => {
  if (code === 0) {
    status.say("connecting", "Connecting…");
  } else {
    outcome = NOTHING;
    offline();
  }
});

client.on("error", () => {
  if (client.state !== "connected") offline();
});

client.on("disconnected", ({ code, reason }) => {
  if (code === 1) status.signedOut("your sign-in has expired");
  else if (code === 3500) status.signedOut("the server does not know this sign-in");
  else if (code > 1) status.stopped(reason);
});

// The user's own room: every client is in it, without a subscription.

client.on("subscribed", (context) => {
  if (context.channel !== "$user") return;
  arrived(context);
  if (!context.recovered) notifications.load();
});

client.on("publication", ({ channel, data }) => {
  if (channel === "$user") notifications.take(data);
});

/** @param {import("./endpoint").LiveSubscribed} context */
function arrived(context) {
  const { channel, recoverable, wasRecovering, recovered, hasRecoveredPublications, streamPosition } = context;
  if (recoverable) {
    if (wasRecovering && !recovered) outcome = Math.max(outcome, isRestarted(context) ? RESTARTED : TOO_MUCH);
    else if (hasRecoveredPublications) outcome = Math.max(outcome, RECOVERED);
    epochs.set(channel, streamPosition?.epoch);
  }
  if (Object.values(client.subscriptions()).every(({ state }) => state === "subscribed")) {
    status.say("open", OUTCOMES[outcome]);
  }
}

function offline() {
  status.offline(() => {
    client.disconnect();
    client.connect();
  });
}
