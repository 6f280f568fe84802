import { useEffect, useRef, useState } from "react";
import { type Me, type Thread, api, client } from "./desk";
import type { Message, Ticket } from "./live";
import { Composer } from "./Composer";
import { usePresence } from "./usePresence";
import { useRoom } from "./useRoom";

/** One ticket, live. It keeps a ticket and its messages by id, so what arrives twice is there once. */
export function TicketView({ id, me }: { id: number; me: Me }) {
  const room = `ticket:${id}` as const;
  const [ticket, setTicket] = useState<Ticket | null>(null);
  const [messages, setMessages] = useState<ReadonlyMap<number, Message>>(new Map());

  function add(event: Message | Ticket) {
    if (event.type === "ticket") setTicket(event);
    else setMessages((before) => new Map(before).set(event.id, event));
  }
  const status = useRoom(client, room, {
    onSubscribed: ({ data }) => {
      const thread: Thread = data;
      setTicket(thread.ticket);
      setMessages(new Map(thread.messages.map((message) => [message.id, message])));
    },
    onMessage: ({ data }) => add(data),
  });
  const present = usePresence(client, room, status.state === "subscribed");

  if (status.state === "unsubscribed") return <p role="alert">You can’t read this ticket: {status.reason}.</p>;
  if (!ticket) return <p>Opening the ticket…</p>;
  return (
    <article className="ticket" aria-labelledby="subject">
      <header>
        <h2 id="subject" tabIndex={-1} ref={focus}>
          {ticket.subject}
        </h2>
        <p>
          {ticket.is_open ? "Open" : "Closed"} · here:{" "}
          <span data-testid="present">{present.map(({ connInfo }) => connInfo.name).sort().join(", ")}</span>
        </p>
        {me.role === "agent" && ticket.is_open && <CloseButton id={id} />}
      </header>
      <Messages messages={[...messages.values()].sort((a, b) => a.id - b.id)} me={me} />
      {ticket.is_open && <Composer label="Your message" send={(text) => client.rpc("say", { ticket_id: id, text })} />}
    </article>
  );
}

/** Brings keyboards and screen readers to what was opened. React calls it once, because it is always the same function. */
const focus = (element: HTMLElement | null) => element?.focus();

function Messages({ messages, me }: { messages: Message[]; me: Me }) {
  const end = useRef<HTMLLIElement>(null);
  const newest = messages.at(-1)?.id;
  useEffect(() => {
    end.current?.scrollIntoView({ block: "nearest" });
  }, [newest]);
  return (
    <ol aria-label="Messages" aria-live="polite" tabIndex={0}>
      {messages.map(({ id, author, text, at }) => (
        <li key={id} className={author === me.id ? "mine" : ""} ref={id === newest ? end : null}>
          <span className="by">
            {author} · <Time at={new Date(at * 1000)} />
          </span>
          <p>{text}</p>
        </li>
      ))}
    </ol>
  );
}

function Time({ at }: { at: Date }) {
  return <time dateTime={at.toISOString()}>{at.toLocaleString([], { dateStyle: "short", timeStyle: "short" })}</time>;
}

function CloseButton({ id }: { id: number }) {
  const [problem, setProblem] = useState("");
  const close = () => api("POST", `tickets/${id}/close`).catch(({ message }) => setProblem(message));
  return (
    <>
      <button onClick={close}>Close ticket</button>
      {problem && <p role="alert">{problem}</p>}
    </>
  );
}
