import { useEffect, useState, useSyncExternalStore } from "react";
import { type Me, type Notice, api, client } from "./desk";
import type { LivePublication, Ticket } from "./live";
import { Composer } from "./Composer";
import { TicketView } from "./TicketView";

export function Desk({ me }: { me: Me }) {
  const opened = useHash();
  const isConnected = useConnected();
  const { tickets, notices, dismiss } = useTickets(me, opened);
  const id = Number(opened);

  return (
    <div className={opened ? "desk ticket-opened" : "desk"}>
      <header>
        <h1>Support desk</h1>
        <p>
          {me.name} ({me.role}) <button onClick={() => api("DELETE", "session")}>Sign out</button>
        </p>
      </header>
      <p role="status" className="line">
        {!isConnected && "No connection. Trying again…"}
      </p>
      <div role="status" aria-label="Notices" className="notices">
        {notices.map(({ key, notice }) => (
          <p key={key}>
            <a href={`#${notice.ticket.id}`}>{notice.text}</a>
            <button aria-label="Dismiss" onClick={() => dismiss(key)}>
              ×
            </button>
          </p>
        ))}
      </div>
      <main>
        <nav aria-label="Tickets">
          {me.role === "customer" && <a href="#new">New ticket</a>}
          <ul>
            {tickets.map(({ id, subject, customer, is_open }) => (
              <li key={id}>
                <a href={`#${id}`} aria-current={opened === `${id}` ? "page" : undefined}>
                  {subject} <small>{`${customer}${is_open ? "" : " · closed"}`}</small>
                </a>
              </li>
            ))}
          </ul>
          {tickets.length === 0 && <p className="hint">No tickets yet.</p>}
        </nav>
        <section>
          {opened && (
            <a className="back" href="#">
              All tickets
            </a>
          )}
          {id ? <TicketView key={id} id={id} me={me} /> : opened === "new" ? <NewTicket /> : <p>Choose a ticket.</p>}
        </section>
      </main>
    </div>
  );
}

function NewTicket() {
  const [subject, setSubject] = useState("");

  async function open(text: string) {
    const ticket = await api<Ticket>("POST", "tickets", { subject, text });
    location.hash = `${ticket.id}`;
  }

  return (
    <article className="ticket">
      <h2>New ticket</h2>
      <label htmlFor="new-subject">Subject</label>
      <input id="new-subject" maxLength={100} value={subject} onChange={(event) => setSubject(event.target.value)} />
      <Composer label="What happened?" send={open} />
    </article>
  );
}

/** The tickets in the list, and the notices about those that are not in view. */
function useTickets(me: Me, opened: string) {
  const [tickets, setTickets] = useState<ReadonlyMap<number, Ticket>>(new Map());
  const [notices, setNotices] = useState<{ key: string; notice: Notice }[]>([]);

  useEffect(() => {
    const load = () =>
      api<Ticket[]>("GET", "tickets").then(
        (all) => setTickets(new Map(all.map((ticket) => [ticket.id, ticket]))),
        () => {}, // no connection; it comes again with the next
      );
    client.on("connected", load);
    return () => {
      client.off("connected", load);
    };
  }, []);

  useEffect(() => {
    const publication = ({ channel, offset, data: notice }: LivePublication<Notice>) => {
      setTickets((before) => new Map(before).set(notice.ticket.id, notice.ticket));
      if (notice.by === me.id || opened === `${notice.ticket.id}`) return;
      setNotices((before) => [...before.slice(-2), { key: `${channel} ${offset}`, notice }]);
    };
    client.on("publication", publication); // of the rooms that the server joins the client to
    return () => {
      client.off("publication", publication);
    };
  }, [me, opened]);

  useEffect(() => {
    setNotices((before) => before.filter(({ notice }) => opened !== `${notice.ticket.id}`));
  }, [opened]);

  return {
    tickets: [...tickets.values()].sort((a, b) => b.id - a.id),
    notices,
    dismiss: (key: string) => setNotices((before) => before.filter((each) => each.key !== key)),
  };
}

function useHash(): string {
  return useSyncExternalStore(
    (changed) => {
      addEventListener("hashchange", changed);
      return () => removeEventListener("hashchange", changed);
    },
    () => location.hash.slice(1),
  );
}

function useConnected(): boolean {
  return useSyncExternalStore(
    (changed) => {
      client.on("state", changed);
      return () => {
        client.off("state", changed);
      };
    },
    () => client.state === "connected",
  );
}
