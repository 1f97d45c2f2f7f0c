// The page's one live state: the model the reducer keeps, how the line stands, and the server's clock.

import { api } from "../api/client";
import { follow, type Line } from "../api/stream";
import type { About } from "../api/schema";
import { take, withOlder, type Model } from "./model";

/** Where the page stands: who is asking decides what is shown. */
export type Session = "unknown" | "unreachable" | "setup" | "login" | "open";

/** How often what is timed live is written anew, milliseconds. */
const TICK_MS = 200;

class Live {
  session = $state<Session>("unknown");
  about = $state.raw<About | null>(null);
  model = $state.raw<Model | null>(null);
  line = $state.raw<Line>({ is: "connecting" });
  /** The server's clock, by our reckoning. Unix milliseconds. */
  now_ms = $state(Date.now());

  #stop: (() => void) | null = null;
  #ticker: ReturnType<typeof setInterval> | undefined;

  /** Finds out whether the server was set up, and goes on with the session there is. */
  async begin(): Promise<void> {
    try {
      this.about = await api.about();
    } catch {
      this.session = "unreachable";
      return;
    }
    if (this.about.needs_setup) this.session = "setup";
    else this.open();
  }

  /** Follows the rack. Whether the session counts the stream itself tells. */
  open(): void {
    this.#stop?.();
    this.#stop = follow({
      view: (view) => {
        this.model = take(this.model, view, Date.now());
        this.now_ms = view.at_ms;
        this.session = "open";
      },
      line: (line) => {
        if (this.line.is !== line.is || line.is === "lost") this.line = line;
        if (this.session === "unknown" && line.is === "lost") this.session = "unreachable";
      },
      ended: () => this.expired(),
    });
    this.#ticker ??= setInterval(() => {
      if (this.model && this.line.is === "live" && !document.hidden)
        this.now_ms = Date.now() + this.model.skew_ms;
    }, TICK_MS);
  }

  /** The session has ended: back to the login. */
  expired(): void {
    this.#close("login");
  }

  async leave(): Promise<void> {
    try {
      await api.logout();
    } finally {
      this.#close("login");
    }
  }

  /** Fetches up to `limit` events older than those known; says how many came. */
  async older(limit: number): Promise<number> {
    const oldest = this.model?.events.at(-1)?.seq ?? 1;
    const older = await api.events(Math.max(0, oldest - 1 - limit), limit);
    if (this.model) this.model = withOlder(this.model, older);
    return older.length;
  }

  #close(session: Session): void {
    this.#stop?.();
    this.#stop = null;
    clearInterval(this.#ticker);
    this.#ticker = undefined;
    this.model = null;
    this.session = session;
  }
}

export const live = new Live();
