// A plain WebSocket that comes back when it is lost: for the whiteboard, whose messages are frames of its own.

import { token } from "./session.js";

const LEAST_DELAY_MS = 500;
const MOST_DELAY_MS = 5_000;
const PING_MS = 10_000;
const PING = '{"type":"ping"}';
const PONG = '{"type":"pong"}';
const REFUSED = 1008; // another attempt would end in the same way

/**
 * @param {string} path the path of the WebSocket
 * @param {object} page
 * @param {() => void} page.onOpen
 * @param {(data: string | ArrayBuffer) => void} page.onMessage
 * @param {() => void} page.onLost tries again by itself
 * @param {(reason: string) => void} page.onRefused does not
 * @returns {{send: (data: string | ArrayBufferView<ArrayBuffer>) => boolean, tryNow: () => void, close: () => void}} send: whether it
 *   was open
 */
export function open(path, { onOpen, onMessage, onLost, onRefused }) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  /** @type {WebSocket} */
  let socket;
  /** @type {number | undefined} */
  let timer;
  let failures = 0;
  let isHeard = true; // since the last ping

  function dial() {
    clearTimeout(timer);
    isHeard = true;
    socket = new WebSocket(url, ["bearer", token() ?? ""]);
    socket.binaryType = "arraybuffer";
    socket.onopen = onOpen;
    socket.onmessage = ({ data }) => {
      isHeard = true;
      if (data !== PONG) onMessage(data);
    };
    socket.onclose = ({ code, reason }) => (code === REFUSED ? onRefused(reason) : lost());
  }

  function lost() {
    leave();
    const bound = Math.min(MOST_DELAY_MS, LEAST_DELAY_MS * 2 ** failures);
    timer = setTimeout(dial, Math.random() * bound); // random, so that not all pages return at once
    failures += 1;
    onLost();
  }

  function tryNow() {
    if (socket.readyState > WebSocket.OPEN) dial();
  }

  function close() {
    leave();
    clearInterval(pings);
    removeEventListener("online", tryNow);
  }

  function leave() {
    clearTimeout(timer);
    socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** @param {string | ArrayBufferView<ArrayBuffer>} data */
  function send(data) {
    if (socket.readyState !== WebSocket.OPEN) return false;
    socket.send(data);
    return true;
  }

  dial();
  addEventListener("online", tryNow);
  const pings = setInterval(() => {
    if (socket.readyState !== WebSocket.OPEN) return;
    if (!isHeard) return lost();
    isHeard = false;
    failures = 0;
    send(PING);
  }, PING_MS);
  return { send, tryNow, close };
}
