// Follows `/v1/stream` for as long as it is wanted, and connects again when the line breaks.
//
//   connecting -> live -> lost(retry at) -> connecting ...
//        \________________ no session: ended

import { headers, Refused, refusalOf, Unreachable } from "./client";
import { SseParser } from "./sse";
import type { RackView } from "./schema";

export type Line =
  { is: "connecting" } | { is: "live" } | { is: "lost"; since_ms: number; retry_ms: number; why: string };

export interface Listener {
  view(view: RackView): void;
  line(line: Line): void;
  /** The session has ended; the stream is over. */
  ended(): void;
}

/** Waits before each new try, milliseconds; the last is repeated. */
const RETRY_MS = [300, 1_000, 2_000, 5_000] as const;
/** With neither event nor keep-alive for so long the line is taken as dead, milliseconds. */
const SILENT_MS_MAX = 40_000;

/** Begins; the function given back stops it. */
export function follow(listener: Listener): () => void {
  const stop = new AbortController();
  void run(listener, stop.signal);
  return () => stop.abort();
}

async function run(listener: Listener, stop: AbortSignal): Promise<void> {
  let failures = 0;
  let lostSince = 0;
  listener.line({ is: "connecting" });
  while (!stop.aborted) {
    let why: string;
    try {
      await once(listener, stop, () => {
        failures = 0;
        lostSince = 0;
      });
      why = "the server closed the connection";
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof Refused && error.refusal.why === "not_logged_in") return listener.ended();
      why = error instanceof Error ? error.message : String(error);
    }
    lostSince ||= Date.now();
    const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)] ?? 5_000;
    failures += 1;
    listener.line({ is: "lost", since_ms: lostSince, retry_ms: Date.now() + wait, why });
    await pause(wait, stop);
  }
}

async function once(listener: Listener, stop: AbortSignal, live: () => void): Promise<void> {
  const attempt = new AbortController();
  const end = () => attempt.abort();
  stop.addEventListener("abort", end, { once: true });
  let watchdog = setTimeout(end, SILENT_MS_MAX);
  try {
    const answer = await fetch("/v1/stream", { headers, signal: attempt.signal, cache: "no-store" }).catch(
      () => {
        throw new Unreachable("the server does not answer");
      },
    );
    if (!answer.ok || !answer.body) throw await refusalOf(answer);
    const parser = new SseParser();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read().catch(() => {
        throw new Unreachable("the connection broke");
      });
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(end, SILENT_MS_MAX);
      for (const { event, data } of parser.feed(value)) {
        if (event !== "rack") continue;
        listener.view(JSON.parse(data) as RackView);
        live();
        listener.line({ is: "live" });
      }
    }
  } finally {
    clearTimeout(watchdog);
    stop.removeEventListener("abort", end);
  }
}

/** Waits, but not past the stop, and not past the moment when the browser is back online. */
function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      stop.removeEventListener("abort", done);
      removeEventListener("online", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    stop.addEventListener("abort", done, { once: true });
    addEventListener("online", done, { once: true });
  });
}
