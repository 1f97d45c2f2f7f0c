// The server's words, as the page uses them. Once the server prints its OpenAPI document this file only
// re-exports from the generated `schema.d.ts`.

export type HostState = "registered" | "booting" | "waiting" | "active" | "draining" | "lost" | "refused";
export type BootStepKind = "dhcp" | "loader" | "script" | "xen" | "kernel" | "image" | "start" | "join";
export type VmPhase =
  | "creating"
  | "stopped"
  | "starting"
  | "running"
  | "paused"
  | "moving"
  | "stopping"
  | "deleting"
  | "unknown"
  | "failed";
export type MovePhase =
  "preparing" | "copying" | "committing" | "activating" | "releasing" | "done" | "aborting" | "aborted";
export type Stage = "preparing" | "listening" | "copying" | "stopped" | "received" | "working";
export type Level = "info" | "warning" | "error";
export type Topic = "dhcp" | "boot" | "host" | "vm" | "move" | "storage" | "server" | "operator";
export type DomainState = "running" | "paused" | "suspended" | "shutdown" | "crashed" | "dying";

export interface BootStep {
  step: BootStepKind;
  at_ms: number;
  took_ms?: number | null;
  bytes: number;
  bytes_total: number;
}
export interface Nic {
  mac: string;
  driver: string;
  link: boolean;
  speed_mbit?: number | null;
}
export interface Inventory {
  uuid: string;
  serial: string;
  product: string;
  firmware: "bios" | "uefi";
  cpu: { vendor: string; model: string; threads: number; features: string[] };
  memory_mib: number;
  dom0_mib: number;
  nics: Nic[];
  xen: string;
  agent: string;
  image: string;
}
export interface HostStats {
  cpu_cores: number;
  memory_free_mib: number;
  dom0_used_mib: number;
  agent_rss_kib: number;
  agent_cpu_cores: number;
  net_rx_bytes_s: number;
  net_tx_bytes_s: number;
}
export interface HostView {
  id: string;
  name: string;
  state: HostState;
  since_ms: number;
  mac: string;
  address?: string | null;
  firmware?: "bios" | "uefi" | null;
  inventory?: Inventory | null;
  stats?: HostStats | null;
  boot: BootStep[];
  note: string;
  vms: string[];
  labels: Record<string, string>;
}
export type Boot =
  | { kind: "kernel"; kernel: string; initrd?: string | null; cmdline: string }
  | { kind: "disk"; loader: string };
export interface VmSpec {
  name: string;
  memory_mib: number;
  vcpus: number;
  boot: Boot;
  disks: string[];
  vifs: { mac: string; bridge: string }[];
}
export interface VmLoad {
  cpu_cores: number;
  net_rx_bytes_s: number;
  net_tx_bytes_s: number;
  disk_read_bytes_s: number;
  disk_write_bytes_s: number;
}
export interface VmView {
  spec: VmSpec;
  phase: VmPhase;
  owner?: string | null;
  epoch: number;
  domain?: DomainState | null;
  since_ms: number;
  move?: number | null;
  load: VmLoad;
  note: string;
}
export interface DiskView {
  name: string;
  size_mib: number;
  vm?: string | null;
  granted: string[];
  ready: boolean;
}
export interface MoveView {
  id: number;
  vm: string;
  source: string;
  target: string;
  reason: string;
  phase: MovePhase;
  stage?: Stage | null;
  bytes: number;
  began_ms: number;
  ended_ms?: number | null;
  total_ms?: number | null;
  downtime_ms?: number | null;
  failure?: string | null;
}
export interface LogEvent {
  seq: number;
  at_ms: number;
  level: Level;
  topic: Topic;
  text: string;
  host?: string | null;
  vm?: string | null;
  move?: number | null;
}
export interface RackView {
  version: number;
  at_ms: number;
  hosts: HostView[];
  vms: VmView[];
  disks: DiskView[];
  moves: MoveView[];
  events: LogEvent[];
  templates: string[];
}
export interface PlannedMove {
  vm: string;
  source: string;
  target: string;
  reason: string;
}
export interface PlanView {
  moves: PlannedMove[];
  score_before: number;
  score_after: number;
  stays: { vm: string; why: string }[];
}
export interface CreateVm {
  name: string;
  template: string;
  memory_mib?: number | null;
  vcpus?: number | null;
  disk_mib?: number | null;
  mac?: string | null;
  cmdline?: string;
  start?: boolean;
}
export interface CreateDisk {
  name: string;
  size_mib: number;
  from?: string | null;
}
export interface RegisterHost {
  mac: string;
  name?: string | null;
}
export interface About {
  version: string;
  needs_setup: boolean;
}
export interface Session {
  token: string;
  expires_ms: number;
}
export type Accepted = { did: "done" } | { did: "begun" } | { did: "moving"; move: number };
export interface Rejected {
  host: string;
  why: string;
}
export type Refusal =
  | { why: "no_host"; host: string }
  | { why: "no_vm"; vm: string }
  | { why: "no_disk"; disk: string }
  | { why: "no_template"; template: string; known: string[] }
  | { why: "name_taken"; name: string }
  | { why: "mac_taken"; mac: string }
  | { why: "host_is"; host: string; state: HostState }
  | { why: "vm_is"; vm: string; phase: VmPhase }
  | { why: "move_under_way"; move: number }
  | { why: "no_place"; vm: string; rejected: Rejected[] }
  | { why: "already_there"; vm: string; host: string }
  | { why: "disk_in_use"; disk: string; vm: string }
  | { why: "host_has_vms"; host: string; count: number }
  | { why: "bad_value"; field: string; given: string; expected: string }
  | { why: "not_logged_in" }
  | { why: "wrong_password" }
  | { why: "too_many_attempts"; retry_s: number }
  | { why: "already_set_up" }
  | { why: "unavailable"; detail: string }
  | { why: "no_such_path" }
  | { why: "host_failed"; host: string; detail: string };
export interface ApiError {
  refusal: Refusal;
  message: string;
}
