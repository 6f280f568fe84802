// ws on Node: a loop over the room, as the project's examples broadcast. Its argument is the port.
"use strict";

const { WebSocketServer } = require("ws");

const rooms = new Map();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 2048,
  perMessageDeflate: false,
});

server.on("connection", (socket, request) => {
  const path = request.url;
  if (!rooms.has(path)) rooms.set(path, new Set());
  const members = rooms.get(path);
  members.add(socket);
  socket.on("error", () => {});
  socket.on("close", () => members.delete(socket));
  socket.on("message", (data, binary) => {
    if (path === "/echo") return socket.send(data, { binary });
    for (const member of members) member.send(data, { binary });
  });
});
