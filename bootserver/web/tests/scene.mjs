// A rack with something of everything: for screenshots, and for tests that look at the page as a whole.

import { boot, disk, event, host, move, power, release, vm } from "./mock/rack.mjs";

/** @import { Mock } from "./mock/server.mjs" */

const MIB = 1024 * 1024;

/** @param {Mock} mock */
export function busyScene(mock) {
  const now = Date.now();
  const alpha = host(1, "alpha", "active", { labels: { row: "a", power: "solar" }, power: power() });
  const beta = host(2, "beta", "active");
  const steps = boot(now - 16_000, "image", false);
  const image = steps.at(-1);
  if (image) Object.assign(image, { at_ms: now - 6_200, bytes: 61 * MIB });
  const gamma = host(3, "h525400aabb03", "booting", { since_ms: now - 16_000, boot: steps });
  const waiting = boot(now - 61_000, "join", false);
  const delta = host(4, "delta", "waiting", { since_ms: now - 9_000, boot: waiting });
  const stuck = boot(now - 320_000, "start", false);
  const epsilon = host(5, "epsilon", "booting", {
    since_ms: now - 320_000,
    boot: stuck,
    stalled: true,
    note: "its image was sent and its agent never called: Xen or dom0 did not come up",
  });
  const zeta = host(6, "zeta", "lost", {
    since_ms: now - 41_000,
    fence: "waiting",
    fence_at_ms: now + 23_000,
    power: power({
      state: "unknown",
      failing_since_ms: now - 60_000,
      failure:
        "BMC 10.9.0.12 (ipmi): asking whether the machine is on: it does not answer on UDP port 623; see that the address is right, that the controller has power, and that IPMI over LAN is switched on there",
    }),
  });
  const eta = host(7, "eta", "registered", { boot: [] });
  mock.change((view) => {
    view.hosts = [alpha, beta, gamma, delta, epsilon, zeta, eta];
    view.vms = [
      vm("counter", alpha.id, "moving", { move: 3 }),
      vm("mail", zeta.id, "unknown", { note: "its host is lost" }),
      vm("old", null, "stopped", { note: "no host can take old", run: true }),
      vm("wiki", alpha.id, "paused"),
      vm("web-1", alpha.id),
      vm("web-2", beta.id),
    ];
    view.ha = { failures_borne: 1, room_mib: 480, frozen: null };
    view.disks = view.vms.map((each) =>
      disk(`${each.spec.name}-disk`, each.spec.name, each.owner ? [each.owner] : []),
    );
    view.moves = [
      move(3, "counter", alpha, beta, {
        phase: "copying",
        stage: "copying",
        bytes: 41 * MIB,
        began_ms: now - 3_400,
        reason: "alpha has 71% of its memory given out, beta 33%",
      }),
      move(2, "web-2", alpha, beta, {
        phase: "done",
        bytes: 108 * MIB,
        began_ms: now - 92_000,
        ended_ms: now - 84_000,
        total_ms: 7_840,
        downtime_ms: 312,
        reason: "beta was accepted and is empty",
      }),
      move(1, "wiki", alpha, beta, {
        phase: "aborted",
        began_ms: now - 190_000,
        ended_ms: now - 188_000,
        failure: "the target did not log in to disk wiki-disk within 10 s",
      }),
    ];
    view.releases = [
      release("b", 5, ["the rollout of pool default"]),
      release("a", 4, ["pool default"]),
      release("c", 3, []),
    ];
    view.pools = [
      {
        name: "default",
        release: "a".repeat(12),
        previous: null,
        hosts: 3,
        outdated: 1,
        rollout: {
          to: "b".repeat(12),
          from: "a".repeat(12),
          phase: "canary",
          began_ms: now - 90_000,
          deadline_ms: now + 1_710_000,
          canaries: [{ host: alpha.id, what: "runs 2 VMs; none has fewer" }],
          turns: [{ host: alpha.id, what: "is being emptied: 2 VMs left" }],
          note: "alpha is being emptied: 2 VMs left",
        },
      },
    ];
    Object.assign(alpha, { pool: "default", release: "a".repeat(12), outdated: true });
    view.events = [
      event(9, "counter moves from alpha to beta", { topic: "move", vm: "counter", host: alpha.id }),
      event(8, "zeta is lost: no report for 15 s", { level: "error", host: zeta.id }),
      event(7, "delta waits to be accepted", { host: delta.id }),
      event(6, "epsilon has not called since its image was sent", {
        level: "warning",
        topic: "boot",
        host: epsilon.id,
      }),
      event(5, "web-2 now runs on beta, stood still for 312 ms", {
        topic: "move",
        vm: "web-2",
        host: beta.id,
      }),
      event(4, "beta accepted by the operator", { topic: "operator", host: beta.id }),
      event(3, "lease 10.77.0.51 for 52:54:00:aa:bb:02", { topic: "dhcp", host: beta.id }),
    ];
  });
  mock.log = [
    event(1, "server started", { topic: "server" }),
    event(2, "lease 10.77.0.50 for 52:54:00:aa:bb:01", { topic: "dhcp" }),
    ...[...mock.view.events].reverse(),
  ];
  mock.answer("GET /v1/vms/counter/console", {
    text: "[    0.000000] Linux version 6.1.0\n[    1.204] counter at 10021\n",
  });
  mock.answer("POST /v1/balance", {
    moves: [
      { vm: "web-1", source: alpha.id, target: beta.id, reason: "evens out memory: alpha 71%, beta 33%" },
    ],
    score_before: 0.412,
    score_after: 0.087,
    stays: [{ vm: "mail", why: "its host is lost" }],
  });
  return { alpha, beta, gamma, delta, epsilon, zeta, eta };
}
