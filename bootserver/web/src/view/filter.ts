// The event log's filter.

import type { Level, LogEvent, Topic } from "../api/schema";

export interface Filter {
  /** Words that must all occur in the text or in the name of host or VM; case does not matter. */
  words: string;
  /** At least so grave. */
  level: Level;
  topic: Topic | "all";
}

const GRAVITY: Readonly<Record<Level, number>> = { info: 0, warning: 1, error: 2 };

export function filtered(
  events: readonly LogEvent[],
  { words, level, topic }: Filter,
  name: (host: string) => string,
): readonly LogEvent[] {
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  return events.filter((event) => {
    if (GRAVITY[event.level] < GRAVITY[level]) return false;
    if (topic !== "all" && event.topic !== topic) return false;
    const host = event.host ? `${event.host} ${name(event.host)}` : "";
    const text = `${event.text} ${host} ${event.vm ?? ""} ${event.topic}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
}
