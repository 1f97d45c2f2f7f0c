// Small views for the unit tests.

import type { HostView, LogEvent, MoveView, RackView, VmView } from "../api/schema";

export function rack(more: Partial<RackView> = {}): RackView {
  return {
    version: 1,
    at_ms: 1_000,
    hosts: [],
    vms: [],
    disks: [],
    moves: [],
    events: [],
    templates: [],
    ...more,
  };
}

export function host(id: string, more: Partial<HostView> = {}): HostView {
  const empty = { since_ms: 0, mac: "52:54:00:aa:bb:01", boot: [], note: "", vms: [], labels: {} };
  return { id, name: id, state: "active", ...empty, ...more };
}

export function vm(name: string, owner: string | null, more: Partial<VmView> = {}): VmView {
  const load = {
    cpu_cores: 0,
    net_rx_bytes_s: 0,
    net_tx_bytes_s: 0,
    disk_read_bytes_s: 0,
    disk_write_bytes_s: 0,
  };
  const boot = { kind: "disk" as const, loader: "00" };
  const spec = { name, memory_mib: 96, vcpus: 1, boot, disks: [], vifs: [] };
  return { spec, phase: "running", owner, epoch: 1, since_ms: 0, load, note: "", ...more };
}

export function move(
  id: number,
  of: string,
  source: string,
  target: string,
  more: Partial<MoveView> = {},
): MoveView {
  return { id, vm: of, source, target, reason: "", phase: "copying", bytes: 0, began_ms: 0, ...more };
}

export function event(seq: number, text: string, more: Partial<LogEvent> = {}): LogEvent {
  return { seq, at_ms: seq, level: "info", topic: "host", text, ...more };
}

export function loaded(id: string, cpu_cores: number, memory_free_mib: number): HostView {
  const quiet = {
    dom0_used_mib: 0,
    agent_rss_kib: 0,
    agent_cpu_cores: 0,
    net_rx_bytes_s: 0,
    net_tx_bytes_s: 0,
  };
  const cpu = { vendor: "", model: "", threads: 4, features: [] };
  const names = { uuid: "", serial: "", product: "", xen: "", agent: "", image: "" };
  return host(id, {
    stats: { cpu_cores, memory_free_mib, ...quiet },
    inventory: { ...names, firmware: "bios", cpu, memory_mib: 2_048, dom0_mib: 512, nics: [] },
  });
}
