// Makes views of a rack for the mock server: the shapes are checked against the page's own types.

/**
 * @import { BootStep, BootStepKind, HostState, HostView, LogEvent, MoveView, PowerView, RackView, ReleaseView, VmPhase, VmView } from "../../src/api/schema.d.ts"
 */

const MIB = 1024 * 1024;
/** @type {readonly BootStepKind[]} */
export const STEPS = ["dhcp", "loader", "script", "xen", "kernel", "image", "start", "join"];
const TOOK_MS = [410, 1_130, 260, 620, 940, 9_400, 31_200, 900];

/** As rack/src/view.rs writes them. @type {Partial<Record<HostState, string>>} */
const NOTES = {
  registered: "has not been seen yet; power it on",
  waiting: "waits to be accepted",
  refused: "was refused: only machines registered beforehand are let in; accept it or register it",
  lost: "neither reports nor writes its heartbeat; its lease is waited out, then its VMs start elsewhere",
};

/** @returns {RackView} */
export function emptyRack() {
  return {
    version: 1,
    at_ms: Date.now(),
    hosts: [],
    vms: [],
    disks: [],
    moves: [],
    events: [],
    templates: ["tiny", "debian"],
    ha: { failures_borne: 0, room_mib: 0, frozen: null },
  };
}

/**
 * A release for hosts.
 * @param {string} digit @param {number} version @param {string[]} used_by @returns {ReleaseView}
 */
export function release(digit, version, used_by) {
  const file = { sha256: digit.repeat(64), bytes: 8 * MIB };
  return {
    id: digit.repeat(12),
    manifest: {
      name: "dom0",
      version,
      kind: "dom0",
      files: { xen: file, "dom0.img": { ...file, bytes: 15 * MIB } },
      xen: "4.17.5+23-ga4e5191dc0-1+deb12u1",
      kernel: "6.1.140-1",
      built_ms: null,
    },
    imported_ms: Date.now() - 86_400_000,
    used_by,
  };
}

/**
 * Steps of a boot, up to and with `upTo`; that one under way unless `done`.
 * @param {number} began_ms @param {BootStepKind} upTo @param {boolean} done @returns {BootStep[]}
 */
export function boot(began_ms, upTo, done) {
  const last = STEPS.indexOf(upTo);
  let at_ms = began_ms;
  return STEPS.slice(0, last + 1).map((step, i) => {
    const took = TOOK_MS[i] ?? 0;
    const total = step === "image" ? 96 * MIB : 0;
    const over = i < last || done;
    /** @type {BootStep} */
    const made = { step, at_ms, took_ms: over ? took : null, bytes: over ? total : 0, bytes_total: total };
    at_ms += took;
    return made;
  });
}

/**
 * @param {number} n @param {string} name @param {HostState} state @param {Partial<HostView>} [more] @returns {HostView}
 */
export function host(n, name, state, more = {}) {
  const mac = `52:54:00:aa:bb:${String(n).padStart(2, "0")}`;
  const seen = state !== "registered";
  const up = state === "active" || state === "draining";
  return {
    id: `h${mac.replaceAll(":", "")}`,
    name,
    state,
    since_ms: Date.now() - 190_000,
    mac,
    address: seen ? `10.77.0.${49 + n}` : null,
    firmware: seen ? (n % 2 ? "bios" : "uefi") : null,
    inventory: up || state === "waiting" ? inventory(mac, n) : null,
    stats: up ? stats(0.3 * n, 900 + 60 * n) : null,
    boot: up ? boot(Date.now() - 240_000, "join", true) : [],
    note: NOTES[state] ?? "",
    vms: [],
    labels: {},
    ...more,
  };
}

/** @param {Partial<PowerView>} [more] @returns {PowerView} */
export function power(more = {}) {
  return {
    kind: "ipmi",
    address: "10.9.0.7",
    user: "boot",
    trust: "",
    system: "",
    state: "on",
    at_ms: Date.now() - 12_000,
    failing_since_ms: null,
    failure: "",
    order: null,
    ...more,
  };
}

/** @param {number} cpu_cores @param {number} memory_free_mib */
export function stats(cpu_cores, memory_free_mib) {
  return {
    cpu_cores,
    memory_free_mib,
    dom0_used_mib: 212,
    agent_rss_kib: 6_300,
    agent_cpu_cores: 0.004,
    net_rx_bytes_s: 13_400,
    net_tx_bytes_s: 820,
  };
}

/** @param {string} mac @param {number} n @returns {NonNullable<HostView["inventory"]>} */
function inventory(mac, n) {
  return {
    uuid: `4c4c4544-0000-2010-8020-80c04f2020${String(n).padStart(2, "0")}`,
    serial: `QE-00${n}`,
    product: "QEMU Standard PC (Q35 + ICH9, 2009)",
    firmware: n % 2 ? "bios" : "uefi",
    cpu: {
      vendor: "AuthenticAMD",
      model: "QEMU TCG CPU version 2.5+",
      threads: 2,
      features: ["apic", "avx", "cmov", "cx16", "fpu", "lm", "mmx", "nx", "pae", "sse4_2", "svm", "x2apic"],
    },
    memory_mib: 2_048,
    dom0_mib: 512,
    nics: [{ mac, driver: "virtio_net", link: true, speed_mbit: 1_000 }],
    xen: "4.17.7",
    agent: "0.1.0",
    image: "9f2c5b7e1d0a4c3b8e6f7a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f",
  };
}

/**
 * @param {string} name @param {string | null} owner @param {VmPhase} [phase] @param {Partial<VmView>} [more] @returns {VmView}
 */
export function vm(name, owner, phase = "running", more = {}) {
  return {
    spec: {
      name,
      memory_mib: 96,
      vcpus: 1,
      boot: { kind: "kernel", kernel: "ab".repeat(32), initrd: "cd".repeat(32), cmdline: "console=hvc0" },
      disks: [`${name}-disk`],
      vifs: [{ mac: "00:16:3e:11:22:33", bridge: "xenbr0" }],
    },
    phase,
    owner,
    epoch: 1,
    domain: phase === "running" ? "running" : null,
    since_ms: Date.now() - 64_000,
    move: null,
    load: {
      cpu_cores: phase === "running" ? 0.12 : 0,
      net_rx_bytes_s: 410,
      net_tx_bytes_s: 380,
      disk_read_bytes_s: 0,
      disk_write_bytes_s: 20_480,
    },
    note: "",
    restart: { priority: "normal", delay_s: 0, on_crash: "restart" },
    run: phase !== "stopped" && phase !== "failed",
    ...more,
  };
}

/**
 * @param {number} id @param {string} of @param {HostView} source @param {HostView} target @param {Partial<MoveView>} [more] @returns {MoveView}
 */
export function move(id, of, source, target, more = {}) {
  return {
    id,
    vm: of,
    source: source.id,
    target: target.id,
    reason: "asked for by the operator",
    phase: "preparing",
    stage: null,
    bytes: 0,
    began_ms: Date.now(),
    ended_ms: null,
    total_ms: null,
    downtime_ms: null,
    failure: null,
    ...more,
  };
}

/** @param {number} seq @param {string} text @param {Partial<LogEvent>} [more] @returns {LogEvent} */
export function event(seq, text, more = {}) {
  return { seq, at_ms: Date.now() - 1_000, level: "info", topic: "host", text, ...more };
}

/** @param {string} name @param {string} of @param {string[]} granted */
export function disk(name, of, granted) {
  return { name, size_mib: 64, vm: of, granted, ready: true };
}
