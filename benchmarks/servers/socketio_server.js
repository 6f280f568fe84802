// Socket.IO on Node, WebSocket only. The path that the others have is a query parameter here. Its argument is the port.
"use strict";

const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { transports: ["websocket"], perMessageDeflate: false, serveClient: false });

io.on("connection", (socket) => {
  const { path } = socket.handshake.query;
  socket.join(path);
  socket.on("message", (data) => {
    if (path === "/echo") socket.emit("message", data);
    else io.to(path).emit("message", data);
  });
});

http.listen({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 2048 });
