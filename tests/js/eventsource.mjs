// An EventSource for Node.js, which has none: it reads the fields that a fallback sends, and ends at the first error.

export class EventSource {
  #abort = new AbortController();

  constructor(url) {
    this.#read(url).catch(() => {}).then(() => this.#abort.signal.aborted || this.onerror?.({ type: "error" }));
  }

  close() {
    this.#abort.abort();
  }

  async #read(url) {
    const response = await fetch(url, { headers: { Accept: "text/event-stream" }, signal: this.#abort.signal });
    if (response.status !== 200 || response.headers.get("Content-Type") !== "text/event-stream") return;
    this.onopen?.({ type: "open" });
    const decoder = new TextDecoder();
    let rest = "";
    for await (const part of response.body) {
      const events = (rest + decoder.decode(part, { stream: true })).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.split(/\r|\n/).filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (data.length && !this.#abort.signal.aborted) this.onmessage?.({ data: data.join("\n") });
      }
    }
  }
}
