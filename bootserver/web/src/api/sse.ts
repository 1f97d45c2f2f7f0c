// Server-sent events (WHATWG HTML, section 9.2) from a byte stream. Pure but for the decoder it is given text by.
// We read the stream by fetch rather than EventSource: only so do we see the answer's status (a session that has
// ended is not a broken line) and the keep-alive comments (a silent line is a broken one).

export interface SseEvent {
  event: string;
  data: string;
}

/** Longest line kept, in UTF-16 units. A view of a thousand hosts is some 2 million. */
const BUFFERED_MAX = 64 * 1024 * 1024;

/** Text in, events out. Keeps what is unfinished. */
export class SseParser {
  #rest = "";
  #event = "";
  #data: string[] = [];

  feed(text: string): SseEvent[] {
    const found: SseEvent[] = [];
    this.#rest += text;
    // A CR at the very end may be half of a CRLF: leave it for the next piece.
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > BUFFERED_MAX) throw new RangeError("the event stream sent a line without an end");
    for (const line of lines) {
      if (line === "") {
        if (this.#data.length > 0)
          found.push({ event: this.#event || "message", data: this.#data.join("\n") });
        this.#event = "";
        this.#data = [];
        continue;
      }
      const colon = line.indexOf(":");
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") this.#data.push(value);
      else if (field === "event") this.#event = value;
    }
    return found;
  }
}
