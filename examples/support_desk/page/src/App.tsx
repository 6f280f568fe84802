import { useEffect, useState } from "react";
import { type Me, api, client } from "./desk";
import { Desk } from "./Desk";
import { SignIn } from "./SignIn";

/** The sign-in, or the desk. The cookie is sent by the browser, with requests and with the connection alike. */
export function App() {
  const [me, setMe] = useState<Me | null>();
  useEffect(() => {
    api<Me>("GET", "session").then(setMe, () => setMe(null));
  }, []);
  useEffect(() => {
    const ended = () => setMe(null); // signed out, perhaps in another tab, or the session is over
    client.on("disconnected", ended);
    if (me) client.connect();
    return () => {
      client.off("disconnected", ended);
      client.disconnect();
    };
  }, [me]);

  if (me === undefined) return null;
  return me ? <Desk me={me} /> : <SignIn onSignedIn={setMe} />;
}
