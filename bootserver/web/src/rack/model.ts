// What the page knows: the newest view, and what only a page that has watched for a while can know (load over
// time, older events). One reducer: `take(model, view, local_ms)`. It reads no clock.

import type { HostView, LogEvent, RackView } from "../api/schema";
import { newsOf } from "./news";

/** One point of a host's load. */
export interface Sample {
  at_ms: number;
  /** Cores in use. */
  cpu: number;
  /** MiB given to domains, dom0 among them. */
  memory: number;
}

export interface Model {
  view: RackView;
  /** Server's clock less ours, milliseconds. */
  skew_ms: number;
  /** By host. Oldest first. */
  load: ReadonlyMap<string, readonly Sample[]>;
  /** Newest first, without repeats. */
  events: readonly LogEvent[];
  /** What is said aloud, oldest first. */
  news: readonly Piece[];
}

/** A piece of news. Its number makes it one thing however often it is drawn, so that it is read out once. */
export interface Piece {
  id: number;
  text: string;
}

/** Ten minutes at a report every 2 s. */
export const SAMPLES_MAX = 300;
/** Older ones are fetched again when asked for. */
export const EVENTS_MAX = 2_000;
/** A screen reader that lags still finds so many. */
export const NEWS_KEPT = 12;

export function take(model: Model | null, view: RackView, local_ms: number): Model {
  return {
    view,
    skew_ms: view.at_ms - local_ms,
    load: new Map(
      view.hosts.map((host) => [host.id, sampled(model?.load.get(host.id) ?? [], host, view.at_ms)]),
    ),
    events: merged(model?.events ?? [], view.events),
    news: model ? told(model.news, newsOf(model.view, view)) : [],
  };
}

/** Events fetched from the log, put among those known. */
export function withOlder(model: Model, older: readonly LogEvent[]): Model {
  return { ...model, events: merged(model.events, older) };
}

function sampled(before: readonly Sample[], host: HostView, at_ms: number): readonly Sample[] {
  const { stats, inventory } = host;
  if (!stats || !inventory) return [];
  const sample = { at_ms, cpu: stats.cpu_cores, memory: inventory.memory_mib - stats.memory_free_mib };
  const last = before.at(-1);
  // A view comes for many reasons; only a report changes these numbers. An unchanged one is noted every 2 s.
  if (last && at_ms - last.at_ms < 2_000 && last.cpu === sample.cpu && last.memory === sample.memory)
    return before;
  if (last && at_ms <= last.at_ms) return before;
  return [...before.slice(1 - SAMPLES_MAX), sample];
}

function told(before: readonly Piece[], texts: readonly string[]): readonly Piece[] {
  if (texts.length === 0) return before;
  const next = (before.at(-1)?.id ?? 0) + 1;
  return [...before, ...texts.map((text, i) => ({ id: next + i, text }))].slice(-NEWS_KEPT);
}

function merged(known: readonly LogEvent[], more: readonly LogEvent[]): readonly LogEvent[] {
  const seen = new Set(known.map((event) => event.seq));
  const added = more.filter((event) => !seen.has(event.seq));
  if (added.length === 0) return known;
  return [...known, ...added].sort((a, b) => b.seq - a.seq).slice(0, EVENTS_MAX);
}
