// What is worth saying aloud when one view follows another: a screen reader's user hears it (aria-live), so it is
// only what a person at the rack would call out.

import type { HostState, HostView, MoveView, RackView } from "../api/schema";
import { duration } from "../view/format";

/** Past this many at once they are summed up: a rack powering on is not read out host by host. */
const NEWS_MAX = 4;

const HOST: Partial<Record<HostState, string>> = {
  booting: "is booting",
  waiting: "waits to be accepted",
  active: "is active",
  draining: "is being drained",
  lost: "is lost",
  refused: "was refused",
};

export function newsOf(before: RackView, after: RackView): string[] {
  const named = new Map(after.hosts.map((host) => [host.id, host.name]));
  const name = (id: string) => named.get(id) ?? id;
  const news = [...hostNews(before.hosts, after.hosts), ...moveNews(before.moves, after.moves, name)];
  const seq = before.events[0]?.seq ?? 0;
  for (const event of [...after.events].reverse()) {
    if (event.seq > seq && event.level !== "info") news.push(`${event.level}: ${event.text}`);
  }
  if (news.length <= NEWS_MAX) return news;
  return [...news.slice(0, NEWS_MAX), `and ${news.length - NEWS_MAX} more changes`];
}

function hostNews(before: readonly HostView[], after: readonly HostView[]): string[] {
  const was = new Map(before.map((host) => [host.id, host.state]));
  return after.flatMap((host) => {
    const said = HOST[host.state];
    return said && was.get(host.id) !== host.state ? [`${host.name} ${said}`] : [];
  });
}

function moveNews(
  before: readonly MoveView[],
  after: readonly MoveView[],
  name: (id: string) => string,
): string[] {
  const was = new Map(before.map((move) => [move.id, move.phase]));
  return after.flatMap((move) => {
    const phase = was.get(move.id);
    if (phase === move.phase) return [];
    if (move.phase === "done") {
      const stood = move.downtime_ms == null ? "" : `, stood still for ${duration(move.downtime_ms)}`;
      return [`${move.vm} now runs on ${name(move.target)}${stood}`];
    }
    if (move.phase === "aborted")
      return [`the move of ${move.vm} was called off; it stays on ${name(move.source)}`];
    return phase === undefined ? [`${move.vm} moves from ${name(move.source)} to ${name(move.target)}`] : [];
  });
}
