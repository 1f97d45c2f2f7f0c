// Which VM is drawn where. A VM is in one place only: on its owner, or on the shelf of those that run nowhere. One
// that is on its way in is shown on the target as well, as an outline.

import type { MoveView, RackView, VmView } from "../api/schema";

export interface Places {
  /** By host, by name. */
  on: ReadonlyMap<string, readonly VmView[]>;
  /** Those that run nowhere. */
  shelf: readonly VmView[];
  /** By target host: moves under way whose VM is not there yet. */
  arriving: ReadonlyMap<string, readonly MoveView[]>;
  /** By VM: its move under way. */
  moving: ReadonlyMap<string, MoveView>;
}

const NOWHERE: ReadonlySet<string> = new Set(["creating", "stopped", "deleting"]);

export const ended = (move: MoveView) => move.phase === "done" || move.phase === "aborted";

export function placesOf(view: RackView): Places {
  const known = new Set(view.hosts.map((host) => host.id));
  const owner = (vm: VmView) =>
    vm.owner != null && known.has(vm.owner) && !NOWHERE.has(vm.phase) ? vm.owner : undefined;
  const homes = new Map(view.vms.map((vm) => [vm.spec.name, owner(vm)]));
  const live = view.moves.filter((move) => !ended(move));
  return {
    on: grouped(view.vms, owner),
    shelf: view.vms.filter((vm) => owner(vm) === undefined),
    arriving: grouped(live, (move) =>
      homes.has(move.vm) && homes.get(move.vm) !== move.target ? move.target : undefined,
    ),
    moving: new Map(live.map((move) => [move.vm, move])),
  };
}

/** A text that differs when anything in the drawing may have got another place. */
export function layoutOf(view: RackView, places: Places): string {
  const names = (items: readonly VmView[] = []) => items.map((vm) => vm.spec.name).join(" ");
  const units = view.hosts.map((host) => {
    const arriving =
      places.arriving
        .get(host.id)
        ?.map((move) => move.vm)
        .join(" ") ?? "";
    return `${host.id} ${host.state}: ${names(places.on.get(host.id))} <- ${arriving}`;
  });
  return [...units, names(places.shelf)].join("\n");
}

function grouped<T>(items: readonly T[], by: (item: T) => string | undefined): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = by(item);
    if (key === undefined) continue;
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}
