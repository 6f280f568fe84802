import { useEffect, useRef, useState } from "react";
import type { Live, LivePublication, LiveRoomName, LiveRoomOf, LiveSubscribed } from "./live";

interface Handlers<Data> {
  /** The client is in the room, for the first time or again. `data` is what the room's function has granted. */
  onSubscribed?: (context: LiveSubscribed) => void;
  onMessage: (message: LivePublication<Data>) => void;
}

/** "subscribing" also while the connection is lost. After "unsubscribed", the client does not come back by itself. */
type RoomState = { state: "subscribing" | "subscribed" } | { state: "unsubscribed"; code: number; reason: string };

/** Subscribes to a room while the component is mounted. Returns whether it is subscribed, or why it is not. */
export function useRoom<Name extends LiveRoomName>(
  client: Live,
  room: Name,
  handlers: Handlers<LiveRoomOf<Name>["publication"]>,
): RoomState {
  const [state, setState] = useState<RoomState>({ state: "subscribing" });
  const latest = useRef(handlers);
  useEffect(() => {
    latest.current = handlers;
  });
  useEffect(() => {
    const subscription = client.newSubscription(room);
    subscription.on("publication", (message) => latest.current.onMessage(message));
    subscription.on("subscribed", (context) => {
      setState({ state: "subscribed" });
      latest.current.onSubscribed?.(context);
    });
    subscription.on("subscribing", () => setState({ state: "subscribing" }));
    subscription.on("unsubscribed", ({ code, reason }) => setState({ state: "unsubscribed", code, reason }));
    subscription.subscribe();
    return () => {
      subscription.removeAllListeners();
      client.removeSubscription(subscription);
    };
  }, [client, room]);
  return state;
}
