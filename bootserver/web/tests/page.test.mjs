// The page in Chromium over the mock server: what an operator sees and does. Needs chromium and openssl.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { assertGlides, axe, launch, newPage, overflow, watchFlights } from "./browser.mjs";
import { boot, event, host, move, power, release, stats, vm } from "./mock/rack.mjs";
import { CODE, Mock, PASSWORD } from "./mock/server.mjs";
import { busyScene } from "./scene.mjs";

/** @import { Browser, BrowserContextOptions, Locator, Page } from "playwright-core" */

/** @type {Browser} */ let browser;
/** @type {Mock} */ let mock;
/** @type {Page} */ let page;
/** @type {string[]} */ let wrong;
/** @type {() => Promise<void>} */ let close;

before(async () => {
  browser = await launch();
});
after(() => browser.close());

beforeEach(async () => {
  mock = new Mock();
  await mock.start();
});
afterEach(async () => {
  await close();
  mock.stop();
  assert.deepEqual(wrong, [], "uncaught errors, or what the content security policy blocked");
});

/** @param {BrowserContextOptions} [options] */
async function open(options) {
  ({ page, wrong, close } = await newPage(browser, options));
  await page.goto(mock.url);
}

/** @param {BrowserContextOptions} [options] */
async function logIn(options) {
  await open(options);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Rack" }).waitFor();
}

const unit = (/** @type {string} */ name) => page.getByRole("article", { name });
const step = (/** @type {string} */ name, /** @type {string} */ kind) =>
  unit(name).locator(`[data-step=${kind}]`).first();
const chip = (/** @type {string} */ name) => page.locator(`#rack [data-vm="${name}"]`);
const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? "");

/** Presses Tab until that has the focus; fails after so many. @param {Locator} wanted @param {number} [most] */
async function tabTo(wanted, most = 60) {
  for (let i = 0; i < most; i += 1) {
    await page.keyboard.press("Tab");
    if (await wanted.evaluate((element) => element === document.activeElement)) return;
  }
  assert.fail(`${wanted} is not reached by ${most} tabs`);
}

/** Waits until it holds. @param {string} what @param {() => Promise<boolean> | boolean} holds */
async function until(what, holds) {
  const deadline = Date.now() + 60_000;
  while (!(await holds())) {
    if (Date.now() > deadline) assert.fail(`never came to be: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test("first use: slips are shown beside their fields, then code and password open the rack", async () => {
  mock.needsSetup = true;
  await open();
  const submit = page.getByRole("button", { name: "Set up" });
  await page.getByLabel("New password").fill("short");
  await submit.click();
  await page.getByRole("alert").filter({ hasText: "needed" }).waitFor();
  await page.getByRole("alert").filter({ hasText: "10 to 200 characters" }).waitFor();
  await page.getByLabel("Set-up code").fill("WRONG");
  await page.getByLabel("New password").fill(PASSWORD);
  await page.getByLabel("The same again").fill(PASSWORD);
  await submit.click();
  await page.getByRole("alert").filter({ hasText: "The password or code is wrong." }).waitFor();
  assert.equal(await page.getByLabel("Set-up code").getAttribute("aria-invalid"), "true");
  await page.getByLabel("Set-up code").fill(CODE);
  await submit.click();
  await page.getByText("No machine yet.").waitFor();
});

test("login: a wrong password is told, a right one opens, logging out and a lost session close", async () => {
  await open();
  await page.getByLabel("Password").fill("not it at all");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "wrong" }).waitFor();
  await page.getByLabel("Password").fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByText("Power on a machine on this network").waitFor();
  await page.reload();
  await page.getByText("No machine yet.").waitFor();
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await page.getByLabel("Password").fill(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByText("No machine yet.").waitFor();
  mock.forget();
  await page.getByRole("heading", { name: "Log in" }).waitFor();
});

test("a machine goes from its first packet to active, every step timed, without a reload", async () => {
  await logIn();
  const began = Date.now();
  /** @param {Parameters<typeof boot>[1]} upTo @param {boolean} done @param {Parameters<typeof host>[2]} state */
  const at = (upTo, done, state) =>
    mock.change((view) => {
      view.hosts = [host(1, "alpha", state, { boot: boot(began, upTo, done), since_ms: began })];
    });
  at("dhcp", false, "booting");
  await step("alpha", "dhcp").and(page.locator("[data-is=running]")).waitFor();
  const time = step("alpha", "dhcp").locator(".time");
  const first = await time.textContent();
  await until("the time grows by itself", async () => (await time.textContent()) !== first);
  at("image", false, "booting");
  mock.change((view) => {
    const image = view.hosts[0]?.boot.at(-1);
    if (image) image.bytes = image.bytes_total / 4;
  });
  await step("alpha", "image").getByText("25%").waitFor();
  await step("alpha", "xen").getByText("620 ms").waitFor();
  at("join", false, "waiting");
  await step("alpha", "join").and(page.locator("[data-is=awaited]")).waitFor();
  await page
    .getByRole("log", { name: "Changes" })
    .getByText("alpha waits to be accepted")
    .waitFor({ state: "attached" });
  await page.getByRole("button", { name: "Accept alpha" }).click();
  await until("the server is asked", () => mock.asked.length > 0);
  assert.deepEqual(mock.asked, [{ method: "POST", path: "/v1/hosts/h525400aabb01/accept", body: null }]);
  at("join", true, "active");
  await unit("alpha").getByText("booted in 45 s").waitFor();
  await unit("alpha").getByText("No VM runs here.").waitFor();
});

test("a boot that stands still is shown as stalled, with the likely cause that the server names", async () => {
  await logIn();
  const steps = boot(Date.now() - 400_000, "loader", true);
  const loader = steps.at(-1);
  if (loader) Object.assign(loader, { bytes: 1024 * 1024, again: 4 });
  const note = "it asked for the same loader 5 times: a quirk of its firmware";
  mock.change((view) => {
    view.hosts = [host(1, "alpha", "booting", { boot: steps, stalled: true, note })];
  });
  const stalled = step("alpha", "loader").and(page.locator("[data-is=stalled]"));
  await stalled.getByText("asked 5×").waitFor();
  await stalled.getByText("1 MiB").waitFor();
  await unit("alpha").getByText("It asked for the same loader 5 times").waitFor();
  await unit("alpha").getByText("Stalled", { exact: true }).waitFor();
});

test("how many hosts may fail is told before it is none, here and where a VM is made", async () => {
  await logIn();
  pair();
  const spare = page.locator("[data-spare]");
  await spare.getByText("No host may fail").waitFor();
  mock.change((view) => {
    view.ha = { failures_borne: 1, room_mib: 480, frozen: null };
  });
  await spare.getByText("1 host may fail, with room for 480 MiB").waitFor();
  await page.getByRole("button", { name: "New VM" }).click();
  const dialog = page.getByRole("dialog", { name: "New VM" });
  await dialog.getByLabel("Memory, MiB").fill("480");
  const warning = dialog.getByText("no host may fail any more");
  assert.equal(await warning.count(), 0);
  await dialog.getByLabel("Memory, MiB").fill("481");
  await warning.waitFor();
  await dialog.getByLabel("Name").fill("db");
  await dialog.getByLabel("After its host fails").selectOption("started first");
  await dialog.getByLabel("Seconds after the fence").fill("30");
  await dialog.getByLabel("If it crashes").selectOption("Leave it stopped");
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual(mock.asked.at(-1)?.body.restart, { priority: "high", delay_s: 30, on_crash: "stop" });
});

test("a host whose VMs wait until it has no power: a person says that it has none, asked twice", async () => {
  await logIn();
  const { alpha, beta } = pair();
  const note = "cannot be cut off the SAN and needs a person, as it has no BMC that can switch it off";
  mock.change((view) => {
    view.hosts = [{ ...alpha, state: "lost", fence: "power", fence_at_ms: null, note }, beta];
  });
  const banner = page.getByRole("region", { name: "alpha must be off" });
  await banner.getByRole("alert").getByText("needs a person").waitFor();
  await unit("alpha").getByText("its VMs start elsewhere when it certainly has no power").waitFor();
  await tabTo(page.getByRole("button", { name: "It is off: alpha" }));
  await page.keyboard.press("Enter");
  await banner.getByText("its VMs run twice").waitFor();
  assert.equal(await focused(), "Keep");
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await until("the server is asked", () => mock.asked.length > 0);
  assert.deepEqual(mock.asked, [{ method: "POST", path: `/v1/hosts/${alpha.id}/confirm-off`, body: null }]);
  mock.change((view) => {
    view.hosts = [{ ...alpha, state: "lost", fence: "done" }, beta];
  });
  await banner.waitFor({ state: "detached" });
});

test("a frozen rack says why, and is thawed by keyboard, asked twice", async () => {
  await logIn();
  const { alpha, beta } = pair();
  mock.change((view) => {
    view.ha = { failures_borne: 0, room_mib: 0, frozen: "2 of 3 hosts vanished together (alpha, beta)" };
    view.hosts = [
      { ...alpha, state: "lost", fence: "waiting", fence_at_ms: null },
      { ...beta, state: "lost", fence: "waiting", fence_at_ms: null },
    ];
  });
  await page.getByRole("alert").filter({ hasText: "2 of 3 hosts vanished together" }).waitFor();
  await page.getByRole("link", { name: "Skip to the rack" }).focus();
  await tabTo(page.getByRole("button", { name: "Thaw the rack" }));
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "Keep");
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Enter");
  await until("the server is asked", () => mock.asked.length > 0);
  assert.deepEqual(mock.asked, [{ method: "POST", path: "/v1/thaw", body: null }]);
  mock.change((view) => {
    view.ha = { failures_borne: 0, room_mib: 0, frozen: null };
  });
  await page.getByRole("alert").waitFor({ state: "detached" });
});

test("that no failure would be noticed is told, and no longer when it would", async () => {
  await logIn();
  const ha = { failures_borne: 1, room_mib: 480 };
  const blind = "heartbeats cannot be read from disks/tsubame-heartbeat.img: Input/output error";
  mock.change((view) => {
    view.hosts = [host(1, "alpha", "active"), host(2, "beta", "active")];
    view.ha = { ...ha, blind };
  });
  const banner = page.getByRole("region", { name: "Blind" });
  await banner.getByRole("alert").getByText("Input/output error").waitFor();
  mock.change((view) => {
    view.ha = ha;
  });
  await banner.waitFor({ state: "detached" });
});

test("a lost host's fence is counted down, and what a VM waits for is told apart from its state", async () => {
  await logIn();
  const { alpha, beta } = pair();
  const fenced = (/** @type {Partial<typeof alpha>} */ more) =>
    mock.change((view) => {
      view.hosts = [{ ...alpha, state: "lost", ...more }, beta];
    });
  const fence_at_ms = Date.now() + 90_000;
  fenced({ fence: "waiting", fence_at_ms });
  const waiting = unit("alpha").getByText("its lease and watchdog are waited out");
  // Each number is shown for one second: which of them is seen is up to the machine.
  const more = async () =>
    Number(/waited out, (\d+) s more\.$/.exec((await waiting.textContent()) ?? "")?.[1]);
  const first = await more();
  const left = Math.ceil((fence_at_ms - Date.now()) / 1_000);
  assert.ok(first >= left && first <= 90, `${first} s are shown, ${left} s are left`);
  await until("it is counted down", async () => (await more()) < first);
  fenced({ fence: "cutting", fence_at_ms: Date.now() - 1 });
  await unit("alpha").getByText("it is being cut off from its disks.").waitFor();
  fenced({ fence: "done", fence_at_ms: null });
  await unit("alpha").getByText("Fenced", { exact: true }).waitFor();
  mock.change((view) => {
    const waits = "waits for db, which goes first and is held back for 6 s more";
    view.vms = [
      vm("web", null, "stopped", {
        run: true,
        note: waits,
        restart: { priority: "low", delay_s: 20, on_crash: "restart" },
      }),
      vm("old", null, "stopped"),
    ];
  });
  await chip("web").getByText("Stopped, to run").waitFor();
  await chip("web").click();
  const dialog = page.getByRole("dialog", { name: "web" });
  await dialog.getByText("Waits for db, which goes first").waitFor();
  assert.equal(await dialog.getByLabel("After its host fails").inputValue(), "low");
  assert.equal(await dialog.getByLabel("Seconds after the fence").inputValue(), "20");
  await dialog.getByRole("button", { name: "Shut down" }).click();
  await until("the server is asked", () => mock.asked.length > 0);
  await page.keyboard.press("Escape");
  await chip("old").click();
  const other = page.getByRole("dialog", { name: "old" });
  assert.equal(await other.getByRole("button", { name: "Shut down" }).isDisabled(), true);
  assert.deepEqual(
    mock.asked.map(({ path }) => path),
    ["/v1/vms/web/shutdown"],
  );
});

test("a list of machines: an error names its line, and how many are to come is shown", async () => {
  await logIn();
  await page.getByRole("button", { name: "Import list" }).click();
  const dialog = page.getByRole("dialog", { name: "Import list" });
  await dialog.getByRole("button", { name: "Import" }).click();
  await dialog.getByText("needed").waitFor();
  await dialog.getByLabel("File").setInputFiles({
    name: "rack.csv",
    mimeType: "text/csv",
    buffer: Buffer.from("serial,name\nS1,r1\n,r2\n"),
  });
  await until("it is read", async () =>
    (await dialog.getByLabel("List", { exact: true }).inputValue()).includes("S1"),
  );
  const refusal = { field: "line 3, uuid, serial", given: "", expected: "a MAC, a UUID or a serial number" };
  mock.refuse(
    "POST /v1/hosts/list",
    400,
    { why: "bad_value", ...refusal },
    'line 3, uuid, serial is "", expected a MAC',
  );
  await dialog.getByRole("button", { name: "Import" }).click();
  await dialog.getByRole("alert").filter({ hasText: "Line 3, uuid, serial" }).waitFor();
  mock.answer("POST /v1/hosts/list", { did: "done" });
  await dialog.getByLabel("List", { exact: true }).fill("serial,name\nS1,r1\n");
  await dialog.getByRole("button", { name: "Import" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual(mock.asked.at(-1)?.body, { text: "serial,name\nS1,r1\n", replace: false });
  mock.change((view) => {
    view.expected = 1;
  });
  await page.getByText("1 machine of a list yet to come").waitFor();
});

test("what a machine is made of is shown, and it is given a name and labels", async () => {
  await logIn();
  const alpha = host(1, "alpha", "waiting", { labels: { row: "a" } });
  if (alpha.inventory) {
    alpha.inventory.hardware = {
      firmware: "AMI 1.2 2024-01-01",
      modules: [
        { slot: "A1", size_mib: 16_384, speed_mts: 3_200, maker: "Micron", part: "36A", serial: "77" },
      ],
      disks: [{ name: "sda", size_mib: 953_869, model: "SAMSUNG", serial: "S3", partitioned: true }],
      bmc: { by: "Redfish", address: "169.254.3.1" },
    };
  }
  mock.change((view) => {
    view.hosts = [alpha];
  });
  await unit("alpha").locator("summary").first().click();
  for (const text of [
    "A1: 16 GiB, 3200 MT/s, Micron 36A 77",
    "sda: 932 GiB, SAMSUNG S3, has partitions",
    "Redfish, 169.254.3.1",
  ])
    await unit("alpha").getByText(text).waitFor();
  await page.getByRole("button", { name: "Name and labels of alpha" }).click();
  const dialog = page.getByRole("dialog", { name: "Name and labels of alpha" });
  assert.equal(await dialog.getByLabel("Labels").inputValue(), "row=a");
  await dialog.getByLabel("Labels").fill("row");
  await dialog.getByRole("button", { name: "Save" }).click();
  await until(
    "it is told",
    async () => (await dialog.getByLabel("Labels").getAttribute("aria-invalid")) === "true",
  );
  await dialog.getByLabel("Labels").fill("row=b, power=solar");
  await dialog.getByLabel("Name").fill("r1");
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual(mock.asked, [
    {
      method: "POST",
      path: `/v1/hosts/${alpha.id}/describe`,
      body: { name: "r1", labels: { row: "b", power: "solar" } },
    },
  ]);
});

/**
 * Two hosts; `web` on the first, or on the one named. It is said in one change: of two, the page may draw the first
 * alone, and `web` would still be gliding when a test looks.
 * @param {"alpha" | "beta"} [on]
 */
function pair(on = "alpha") {
  const alpha = host(1, "alpha", "active");
  const beta = host(2, "beta", "active");
  const vms = [vm("web", on === "alpha" ? alpha.id : beta.id)];
  mock.change((view) => Object.assign(view, { hosts: [alpha, beta], vms }));
  return { alpha, beta };
}

/** Where the top of it is. @param {Locator} of */
const topOf = (of) => of.evaluate((element) => element.getBoundingClientRect().top);

/**
 * Watches the chip of `web`, frame by frame, from before what comes next until it has moved and rests. What it
 * gives back tells the places its top was at. Of one that glides it may miss any: see `watchFlights`.
 */
async function watchChip() {
  const seen = await page.evaluateHandle(async () => {
    /** @type {number[]} */
    const tops = [];
    const top = () => document.querySelector('#rack [data-vm="web"]')?.getBoundingClientRect().top ?? NaN;
    tops.push(top());
    const rest = (async () => {
      for (let still = 0; still < 30;) {
        await new Promise(requestAnimationFrame);
        still = tops.at(-1) === top() && new Set(tops).size > 1 ? still + 1 : 0;
        tops.push(top());
      }
      return [...new Set(tops)];
    })();
    return { rest };
  });
  return () => seen.evaluate(({ rest }) => rest);
}

test("a VM that moves slides from its old host's unit to the new one's, with phase, total and downtime", async () => {
  await logIn();
  const { alpha, beta } = pair();
  await unit("alpha").locator("[data-vm=web]").waitFor();
  mock.change((view) => {
    view.vms = [vm("web", alpha.id, "moving", { move: 1 })];
    view.moves = [
      move(1, "web", alpha, beta, { phase: "copying", stage: "copying", bytes: 48 * 1024 * 1024 }),
    ];
  });
  await unit("beta").locator("[data-ghost=web]").getByText("Copying · 48 MiB").waitFor();
  const moves = page.getByRole("region", { name: "Moves" });
  await moves.getByText("48 MiB of about 96 MiB").waitFor();
  await moves.getByText("asked for by the operator").waitFor();

  const flights = await watchFlights(page);
  const from = await topOf(chip("web"));
  mock.change((view) => {
    view.vms = [vm("web", beta.id, "moving", { epoch: 2, move: 1 })];
    view.moves = [move(1, "web", alpha, beta, { phase: "activating" })];
  });
  await unit("beta").locator("[data-vm=web]").waitFor();
  const flight = await flights.flown("vm/web", beta.id);
  const tops = flight.tops.map((top) => top["vm/web"] ?? NaN);
  assertGlides(tops);
  assert.ok(Math.abs((tops[0] ?? NaN) - from) < 1, `from where it was, ${from}: ${tops.join(" ")}`);
  assert.equal(tops.at(-1), await topOf(chip("web")), "to where it rests");
  assert.ok((tops.at(-1) ?? 0) > from + 50, "from alpha's unit down to beta's");
  assert.equal(flight.end, "finished");
  await until("the outline is gone", async () => (await page.locator("[data-ghost]").count()) === 0);

  mock.change((view) => {
    view.vms = [vm("web", beta.id, "running", { epoch: 2 })];
    view.moves = [
      move(1, "web", alpha, beta, { phase: "done", ended_ms: Date.now(), total_ms: 7_840, downtime_ms: 312 }),
    ];
  });
  await moves.getByText("took 7.8 s").waitFor();
  await moves.getByText("stood still 312 ms").waitFor();
  const said = page
    .getByRole("log", { name: "Changes" })
    .getByText("web now runs on beta, stood still for 312 ms");
  await said.waitFor({ state: "attached" });
});

test("VMs ride with their host when it glides", async () => {
  await logIn();
  const { alpha, beta } = pair("beta");
  await unit("beta").locator("[data-vm=web]").waitFor();
  const flights = await watchFlights(page);
  const slid = `host/${beta.id}`;
  const from = await topOf(page.locator(`[data-slide="${slid}"]`));
  const place = (await topOf(chip("web"))) - from;
  mock.change((view) => {
    view.hosts = [{ ...alpha, state: "lost", note: "silent for 20 s" }, beta];
  });
  const flight = await flights.flown(slid);
  const tops = flight.tops.map((top) => top[slid] ?? NaN);
  assertGlides(tops);
  assert.ok(
    Math.abs((tops[0] ?? NaN) - from) < 1,
    `the unit starts where it was, ${from}: ${tops.join(" ")}`,
  );
  assert.equal(flight.end, "finished");
  const inside = flight.tops.map((top) => (top["vm/web"] ?? NaN) - (top[slid] ?? NaN));
  assert.ok(
    inside.every((each) => Math.abs(each - place) < 0.5),
    `and the VM keeps its place in it, ${place}: ${inside.join(" ")}`,
  );
  assert.deepEqual(
    (await flights.all()).map((each) => each.slid),
    [slid],
    "it has no flight of its own",
  );
});

test("who asks for less motion sees the VM at its new place at once", async () => {
  await logIn({ reducedMotion: "reduce" });
  const { beta } = pair();
  await chip("web").waitFor();
  const flights = await watchFlights(page);
  const watched = await watchChip();
  mock.change((view) => {
    view.vms = [vm("web", beta.id)];
  });
  await unit("beta").locator("[data-vm=web]").waitFor();
  assert.equal((await watched()).length, 2);
  assert.deepEqual(await flights.all(), []);
});

test("a VM's dialog: act, confirm, migrate by choice, console; refusals in words", async () => {
  await logIn();
  const { beta } = pair();
  await chip("web").click();
  const dialog = page.getByRole("dialog", { name: "web" });
  await dialog.getByRole("button", { name: "Pause" }).click();
  await dialog.getByRole("button", { name: "Destroy" }).click();
  await dialog.getByText("loses what it has not written").waitFor();
  assert.equal(await focused(), "Keep");
  await page.keyboard.press("Escape");
  assert.equal(await focused(), "Destroy", "Escape takes the question back and leaves the dialog open");
  await dialog.getByRole("button", { name: "Destroy" }).click();
  await dialog.getByRole("group", { name: "Destroy?" }).getByRole("button", { name: "Destroy" }).click();
  await until("both are asked for", () => mock.asked.length === 2);

  mock.answer("GET /v1/vms/web/console", { text: "counter at 10021\n" });
  await dialog.getByRole("button", { name: "Show console" }).click();
  await dialog.getByText("counter at 10021").waitFor();
  mock.answer("GET /v1/vms/web/console", { text: "counter at 10099\n" });
  await dialog.getByText("counter at 10099").waitFor();

  const save = dialog.getByRole("button", { name: "Save" });
  assert.equal(await save.isDisabled(), true, "nothing was changed");
  const delay = dialog.getByLabel("Seconds after the fence");
  await delay.fill("3601");
  await dialog.getByText("a whole number from 0").waitFor();
  assert.equal(await save.isDisabled(), true);
  await delay.fill("0");
  assert.equal(await save.isDisabled(), true, "it is as it was");
  const crash = dialog.getByLabel("If it crashes");
  assert.equal(await crash.inputValue(), "restart");
  await crash.selectOption("Leave it stopped");
  await save.click();
  await until("the crash is asked for", () => mock.asked.some(({ path }) => path === "/v1/vms/web/ha"));
  mock.change((view) => {
    for (const each of view.vms) each.restart = { priority: "normal", delay_s: 0, on_crash: "stop" };
  });
  await delay.fill("20");
  await dialog.getByLabel("After its host fails").selectOption("high");
  await save.click();
  await until(
    "it is asked for",
    () => mock.asked.filter(({ path }) => path === "/v1/vms/web/ha").length === 2,
  );

  const rejected = [{ host: beta.id, why: "it lacks the processor feature avx2" }];
  mock.refuse(
    "POST /v1/vms/web/migrate",
    409,
    { why: "no_place", vm: "web", rejected },
    "no host can take web",
  );
  await dialog.getByRole("button", { name: "Migrate" }).click();
  await dialog.getByRole("alert").filter({ hasText: "beta: it lacks the processor feature avx2" }).waitFor();
  mock.answer("POST /v1/vms/web/migrate", { did: "moving", move: 1 });
  await dialog.getByLabel("Migrate to").selectOption({ label: "beta, 1020 MiB free" });
  await dialog.getByRole("button", { name: "Migrate" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual(
    mock.asked.map(({ method, path, body }) => [method, path, body]),
    [
      ["POST", "/v1/vms/web/pause", null],
      ["POST", "/v1/vms/web/destroy", null],
      ["POST", "/v1/vms/web/ha", { priority: "normal", delay_s: 0, on_crash: "stop" }],
      ["POST", "/v1/vms/web/ha", { priority: "high", delay_s: 20, on_crash: "stop" }],
      ["POST", "/v1/vms/web/migrate", { to: null }],
      ["POST", "/v1/vms/web/migrate", { to: beta.id }],
    ],
  );
});

test("a new VM: slips and refusals beside their fields, empty fields left to the template", async () => {
  await logIn();
  await page.getByRole("button", { name: "New VM" }).click();
  const dialog = page.getByRole("dialog", { name: "New VM" });
  const name = dialog.getByLabel("Name");
  await name.fill("Web 1");
  await dialog.getByLabel("Memory, MiB").fill("8");
  await page.keyboard.press("Enter");
  await dialog.getByText("1 to 63 of a–z").waitFor();
  await dialog.getByText("a whole number from 16").waitFor();
  assert.equal(mock.asked.length, 0, "what is seen to be wrong is not asked");
  await name.fill("web-1");
  await dialog.getByLabel("Memory, MiB").fill("128");
  mock.refuse("POST /v1/vms", 409, { why: "name_taken", name: "web-1" }, "the name web-1 is taken");
  await page.keyboard.press("Enter");
  await dialog.getByText("The name web-1 is taken.").waitFor();
  assert.equal(await name.getAttribute("aria-invalid"), "true");
  mock.answer("POST /v1/vms", { did: "begun" });
  await name.fill("web-2");
  await dialog.getByLabel("Template").selectOption("debian");
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual(mock.asked.at(-1)?.body, {
    name: "web-2",
    template: "debian",
    memory_mib: 128,
    vcpus: null,
    disk_mib: null,
    mac: null,
    cmdline: "",
    start: true,
    restart: { priority: "normal", delay_s: 0, on_crash: "restart" },
  });
});

test("a release is rolled out, its progress is shown, and it is stopped", async () => {
  await logIn();
  const [old, next, spare] = [release("a", 4, ["pool default"]), release("b", 5, []), release("c", 3, [])];
  const pool = { name: "default", release: old.id, previous: null, hosts: 2, outdated: 0, rollout: null };
  mock.change((view) => {
    view.hosts = [host(1, "alpha", "active", { outdated: true, release: old.id, pool: "default" })];
    view.releases = [next, old, spare];
    view.pools = [pool];
  });
  await unit("alpha").getByText("Outdated").waitFor();
  const panel = page.getByRole("region", { name: "Releases" });
  await panel.getByText("used by pool default").waitFor();
  assert.deepEqual(await axe(page), [], "releases and a pool");
  await panel.getByRole("button", { name: "Roll out a release to default" }).click();
  const dialog = page.getByRole("dialog", { name: "Roll out to default" });
  await dialog.waitFor();
  assert.deepEqual(await axe(page), [], "a rollout is asked for");
  await dialog.getByLabel("Canaries").fill("x");
  await dialog.getByRole("button", { name: "Begin" }).click();
  await dialog.getByText("a whole number from 0").waitFor();
  assert.equal(mock.asked.length, 0);
  await dialog.getByLabel("Canaries").fill("1");
  await dialog.getByLabel("Deadline, minutes").fill("20");
  mock.answer("POST /v1/pools/default/rollout", { did: "begun" });
  await dialog.getByRole("button", { name: "Begin" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual(mock.asked.at(-1)?.body, {
    to: next.id,
    canary: 1,
    deadline_s: 1200,
    healthy_s: 60,
    at_once: 1,
    reboot: true,
  });
  mock.change((view) => {
    const rollout = { to: next.id, from: old.id, began_ms: Date.now(), deadline_ms: Date.now() + 60_000 };
    const hosts = [{ host: "h525400aabb01", what: "starts anew" }];
    view.pools = [
      { ...pool, rollout: { ...rollout, phase: "canary", canaries: hosts, turns: hosts, note: "" } },
    ];
  });
  await panel.getByText("Canaries try it").waitFor();
  await panel.getByText("alpha: starts anew.", { exact: true }).waitFor();
  assert.deepEqual(await axe(page), [], "a rollout under way");
  mock.answer("POST /v1/pools/default/stop", { did: "done" });
  await panel.getByRole("button", { name: "Stop the rollout of default" }).click();
  await panel.getByText("Its canaries go back to the old release.").waitFor();
  await panel.getByRole("button", { name: "Stop", exact: true }).click();
  await until("it is asked to stop", () => mock.asked.at(-1)?.path === "/v1/pools/default/stop");
  mock.answer(`DELETE /v1/releases/${spare.id}`, { did: "done" });
  await panel.getByRole("button", { name: "Delete dom0-3" }).click();
  await panel.getByRole("button", { name: "Delete", exact: true }).click();
  await until("it is deleted", () => mock.asked.at(-1)?.path === `/v1/releases/${spare.id}`);
});

test("balance shows the plan with its reasons before it is carried out", async () => {
  await logIn();
  busyScene(mock);
  await page.getByRole("button", { name: "Balance" }).click();
  const dialog = page.getByRole("dialog", { name: "Balance" });
  await dialog.getByText("web-1: alpha → beta").waitFor();
  await dialog.getByText("evens out memory").waitFor();
  await dialog.getByText("from 0.412 to 0.087").waitFor();
  await dialog.getByText("mail: its host is lost").waitFor();
  await dialog.getByRole("button", { name: "Carry out" }).click();
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual(
    mock.asked.map((asked) => asked.body),
    [{ dry_run: true }, { dry_run: false }],
  );
});

test("a broken line is told and mended by itself, and what was missed is there", async () => {
  await logIn();
  pair();
  await chip("web").waitFor();
  mock.down(true);
  await page.getByRole("alert").filter({ hasText: "Connection lost" }).waitFor();
  await page.getByRole("banner").getByText("Connection lost").waitFor();
  mock.change((view) => {
    view.vms.push(vm("new", view.hosts[1]?.id ?? null));
  });
  mock.down(false);
  await chip("new").waitFor();
  await page.getByRole("alert").waitFor({ state: "detached" });
  await page.getByRole("banner").getByText("Live").waitFor();
});

test("events: filtered, and older ones fetched", async () => {
  await logIn();
  busyScene(mock);
  const log = page.getByRole("region", { name: "Events" });
  await log.getByText("zeta is lost").waitFor();
  const shown = () => log.locator("[data-seq]").count();
  await log.getByLabel("Least level").selectOption("warning");
  await until("two are left", async () => (await shown()) === 2);
  await log.getByLabel("Filter events by words").fill("image");
  await until("one is left", async () => (await shown()) === 1);
  await log.getByLabel("Filter events by words").fill("nothing so named");
  await log.getByText("Clear the filter").waitFor();
  await log.getByLabel("Filter events by words").fill("");
  await log.getByLabel("Least level").selectOption("info");
  await log.getByRole("button", { name: "Fetch older events" }).click();
  await log.getByText("server started").waitFor();
  await log.getByRole("button", { name: "Fetch older events" }).waitFor({ state: "detached" });
  mock.change((view) => {
    view.events = [event(10, "a stranger asks for an address", { topic: "dhcp" }), ...view.events];
  });
  await log.locator("li").first().getByText("a stranger asks").waitFor();
});

test("load is drawn as it comes", async () => {
  await logIn();
  const { alpha } = pair();
  await unit("alpha").getByText("0.30 of 2 cores").waitFor();
  const chart = unit("alpha")
    .getByRole("img", { name: "CPU over the last minutes" })
    .locator("canvas")
    .first();
  const picture = () => chart.evaluate((canvas) => /** @type {HTMLCanvasElement} */ (canvas).toDataURL());
  const before = await picture();
  for (const [i, cores] of [1.9, 0.2, 1.5].entries()) {
    mock.change((view) => {
      view.at_ms = Date.now() + i;
      view.hosts = view.hosts.map((each) =>
        each.id === alpha.id ? { ...each, stats: stats(cores, 700) } : each,
      );
    });
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await unit("alpha").getByText("1.5 of 2 cores").waitFor();
  await until("the line is drawn", async () => (await picture()) !== before);
});

test("everything is reached by keyboard, in order, and dialogs keep and give back the focus", async () => {
  await logIn();
  busyScene(mock);
  await chip("web-2").waitFor();
  await page.evaluate(() => /** @type {HTMLElement} */ (document.activeElement)?.blur());
  await page.keyboard.press("Tab");
  assert.equal(await focused(), "Skip to the rack");
  await page.keyboard.press("Enter");
  await until("it skips there", () => page.evaluate(() => document.activeElement?.id === "rack"));
  const accept = page.getByRole("button", { name: "Accept delta" });
  await tabTo(accept);
  const outline = await accept.evaluate((element) => getComputedStyle(element).outlineStyle);
  assert.notEqual(outline, "none", "what has the focus shows it");
  await page.keyboard.press("Enter");
  await until("accepted", () => mock.asked.some((asked) => asked.path.endsWith("/accept")));

  await page.getByRole("link", { name: "Skip to the rack" }).focus();
  await tabTo(page.getByRole("button", { name: "New VM" }));
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: "New VM" });
  await dialog.waitFor();
  for (let i = 0; i < 30; i += 1) {
    await page.keyboard.press(i % 2 ? "Shift+Tab" : "Tab");
    await page.keyboard.press("Tab");
    const where = await page.evaluate(() => document.activeElement?.closest("dialog, body")?.localName);
    const outside = await page.evaluate(
      () => document.activeElement !== document.body && !document.activeElement?.closest("dialog"),
    );
    assert.equal(outside, false, `the focus left the dialog for ${where}`);
  }
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  assert.equal(await focused(), "New VM");

  // Every control that can be pressed is in the order of tabs.
  const missed = await page.evaluate(() => {
    const controls = [
      ...document.querySelectorAll("button:not(:disabled), input, select:not(:disabled), summary, a[href]"),
    ];
    return controls
      .filter((control) => /** @type {HTMLElement} */ (control).tabIndex < 0)
      .map((control) => control.outerHTML);
  });
  assert.deepEqual(missed, []);
});

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const width of [1280, 400]) {
    test(`axe finds nothing and nothing overflows: ${colorScheme}, ${width} px`, async () => {
      await open({ colorScheme, viewport: { width, height: 900 }, reducedMotion: "reduce" });
      await page.getByLabel("Password").waitFor();
      assert.deepEqual(await axe(page), [], "login");
      await page.getByLabel("Password").fill(PASSWORD);
      await page.keyboard.press("Enter");
      await page.getByText("No machine yet.").waitFor();
      assert.deepEqual(await axe(page), [], "empty rack");
      busyScene(mock);
      mock.change((view) => {
        const long = `a-very-long-name-${"x".repeat(46)}`;
        view.vms.push(vm(long, view.hosts[0]?.id ?? null));
        view.hosts.push(host(8, long, "waiting", { note: `${"word".repeat(40)}` }));
      });
      await chip("web-2").waitFor();
      await unit("alpha").locator("summary").first().click();
      assert.deepEqual(await axe(page), [], "busy rack");
      mock.change((view) => {
        const blind = `heartbeats cannot be read from ${"x".repeat(80)}`;
        view.ha = {
          failures_borne: 0,
          room_mib: 0,
          frozen: "2 of 3 hosts vanished together (alpha, zeta)",
          blind,
        };
        const off = `its VMs wait: tsubame host confirm-off ${"x".repeat(63)}`;
        view.hosts.push(host(9, "iota", "lost", { fence: "power", note: off }));
      });
      await page.getByRole("button", { name: "It is off: iota" }).click();
      assert.deepEqual(await axe(page), [], "a host that must be off");
      assert.equal(await overflow(page), 0, "pixels too wide");
      await page.keyboard.press("Escape");
      await page.getByRole("button", { name: "Thaw the rack" }).click();
      assert.deepEqual(await axe(page), [], "frozen");
      assert.equal(await overflow(page), 0, "pixels too wide");
      await page.keyboard.press("Escape");
      assert.equal(await overflow(page), 0, "pixels too wide");
      await page.getByRole("button", { name: "Remove beta" }).click();
      assert.deepEqual(await axe(page), [], "a question asked");
      for (const name of ["New VM", "Balance", "Register host", "Import list", "New disk"]) {
        await page.getByRole("button", { name }).click();
        const dialog = page.getByRole("dialog");
        await dialog.waitFor();
        if (name === "Balance") await dialog.getByText("These stay").waitFor();
        assert.deepEqual(await axe(page), [], name);
        await page.keyboard.press("Escape");
        await dialog.waitFor({ state: "detached" });
      }
      await chip("counter").click();
      await page.getByRole("button", { name: "Show console" }).click();
      await page.getByText("counter at 10021").waitFor();
      assert.deepEqual(await axe(page), [], "VM");
      const box = await page.getByRole("dialog").boundingBox();
      assert.ok(box && box.x >= 0 && box.x + box.width <= width, "the dialog fits");
      await page.keyboard.press("Escape");
      mock.down(true);
      await page.getByRole("alert").filter({ hasText: "Connection lost" }).waitFor();
      assert.deepEqual(await axe(page), [], "connection lost");
      assert.equal(await overflow(page), 0, "pixels too wide");
    });
  }
}

test("a host's power is switched, and what its controller says is shown", async () => {
  mock.change((view) => {
    view.hosts = [
      host(1, "alpha", "active", { power: power() }),
      host(2, "beta", "registered", { power: power({ state: "off" }) }),
    ];
    view.vms = [vm("web-1", "h525400aabb01")];
  });
  const path = "/v1/hosts/h525400aabb01/power";
  mock.refuse(
    `POST ${path}`,
    409,
    { why: "host_has_vms", host: "h525400aabb01", count: 1 },
    "host h525400aabb01 still has 1 VMs",
  );
  await logIn();
  await unit("alpha").getByText("Power: on").waitFor();
  await unit("alpha").getByRole("button", { name: "Power off alpha" }).click();
  await unit("alpha").getByText("1 VM is on alpha: drain it first, or this is refused.").waitFor();
  assert.equal(mock.asked.length, 0, "one press is not enough");
  await unit("alpha").getByRole("button", { name: "Power off", exact: true }).click();
  await unit("alpha").getByText("still has 1 VMs").waitFor();
  assert.deepEqual(mock.asked, [{ method: "POST", path, body: { verb: "off", network: false } }]);
  assert.equal(await unit("beta").getByRole("button", { name: "Power off beta" }).count(), 0, "it is off");
  await unit("beta").getByRole("button", { name: "Power on beta" }).click();
  await until("the server is asked", () => mock.asked.length > 1);
  await unit("beta").getByText("Power: off").waitFor();
  assert.deepEqual(
    mock.asked.map((asked) => asked.body),
    [
      { verb: "off", network: false },
      { verb: "on", network: false },
    ],
  );
});
