import { useEffect, useState } from "react";
import type { Live, LiveInfo, LiveRoomName } from "./live";

/** Returns the users in a room that is subscribed to: first the list, then again with every join and leave. */
export function usePresence(client: Live, room: LiveRoomName, isSubscribed: boolean): LiveInfo[] {
  const [present, setPresent] = useState<LiveInfo[]>([]);
  useEffect(() => {
    const subscription = client.getSubscription(room);
    if (!isSubscribed || !subscription) return;
    let isCurrent = true;
    const look = () => {
      subscription.presence().then(
        ({ clients }) => isCurrent && setPresent(Object.values(clients)),
        () => {}, // the connection is lost; the effect runs again when it is back
      );
    };
    subscription.on("join", look);
    subscription.on("leave", look);
    look();
    return () => {
      isCurrent = false;
      subscription.off("join", look);
      subscription.off("leave", look);
    };
  }, [client, room, isSubscribed]);
  return isSubscribed ? present : [];
}
