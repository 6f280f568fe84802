import { Centrifuge } from "centrifuge";
import type { Live, Message, Ticket } from "./live";

export interface Me {
  id: string;
  name: string;
  role: "agent" | "customer";
}

export interface Notice {
  type: "notice";
  text: string;
  by: string | null;
  ticket: Ticket;
}

/** The data of the `Grant`: the state of a ticket when the client subscribes. */
export interface Thread {
  ticket: Ticket;
  messages: Message[];
}

export const client: Live = new Centrifuge(`${location.origin.replace("http", "ws")}/live`);

export async function api<T>(method: string, path: string, body?: object): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  const response = await fetch(`/api/${path}`, { method, headers, body: body ? JSON.stringify(body) : null });
  if (response.ok) return response.json();
  throw new Error((await response.json()).detail);
}
