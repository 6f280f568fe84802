import { defineConfig } from "vite";

// For `npm run dev`: what is not the page comes from uvicorn.
const server = "http://127.0.0.1:8000";

export default defineConfig({
  server: { proxy: { "/api": server, "/live": { target: server, ws: true } } },
});
