// Drives the page of a real server, as an operator would, and fails unless what should happen is seen to happen:
//
//   node tests/live.mjs URL SETUP_CODE [--password P] [--hosts 2] [--accept 1] [--template T] [--migrate]
//                       [--shots DIR] [--timeout SECONDS]
//
// 1. Sets the server up with the code, or logs in with the password where that was done before.
// 2. Waits for `hosts` hosts to become active, with their boot steps timed; accepts those that wait by keyboard. At
//    least `accept` of them must have been accepted so.
// 3. Makes a VM from the template (if given) and waits until it runs.
// 4. With `--migrate`: sends a VM to another host by button, sees it glide there, and reads total and downtime.
// All this on one page that is never reloaded. Prints one JSON object a line for each thing seen; exit code 1 and
// the reason on stderr when something does not come within the timeout, 2 when it is called wrongly.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { assertGlides, axe, launch, newPage, overflow, watchFlights } from "./browser.mjs";

/** @import { Locator, Page } from "playwright-core" */

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    password: { type: "string", default: "a password for the live test" },
    hosts: { type: "string", default: "2" },
    accept: { type: "string", default: "1" },
    template: { type: "string" },
    migrate: { type: "boolean", default: false },
    shots: { type: "string", default: "shots" },
    timeout: { type: "string", default: "900" },
  },
});
const [url, code] = positionals;
if (!url || !code) {
  console.error(
    "usage: node tests/live.mjs URL SETUP_CODE [--hosts N] [--accept N] [--template T] [--migrate] [--shots DIR]",
  );
  process.exit(2);
}
const began = Date.now();
const deadline = began + Number(values.timeout) * 1_000;
const left = () => Math.max(1, deadline - Date.now());
const say = (/** @type {string} */ seen, /** @type {object} */ more = {}) =>
  console.log(JSON.stringify({ seen, at_s: (Date.now() - began) / 1_000, ...more }));

mkdirSync(values.shots, { recursive: true });
const browser = await launch();
const { page, wrong } = await newPage(browser);

try {
  await enter(page);
  await page.evaluate(() => Object.assign(globalThis, { neverReloaded: true }));
  await bringUp(page, Number(values.hosts), Number(values.accept));
  const made = values.template ? await makeVm(page, values.template) : null;
  await shots("running");
  if (values.migrate) await migrate(page, made);
  await shots("end");
  await look(page);
  assert.equal(await page.evaluate(() => "neverReloaded" in globalThis), true, "the page was reloaded");
  assert.deepEqual(wrong, [], "uncaught errors, or what the content security policy blocked");
  say("all");
} catch (error) {
  await page.screenshot({ path: join(values.shots, "failed.png"), fullPage: true }).catch(() => {});
  console.error(error);
  console.error(
    "the page said:",
    (
      await page
        .locator("body")
        .innerText()
        .catch(() => "nothing")
    ).slice(0, 3_000),
  );
  process.exitCode = 1;
} finally {
  await browser.close();
}

/** @param {Page} page */
async function enter(page) {
  await page.goto(url ?? "");
  const first = page.getByLabel("Set-up code");
  await first.or(page.getByLabel("Password", { exact: true })).waitFor();
  if (await first.isVisible()) {
    await first.fill(code ?? "");
    await page.getByLabel("New password").fill(values.password);
    await page.getByLabel("The same again").fill(values.password);
  } else {
    await page.getByLabel("Password", { exact: true }).fill(values.password);
  }
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Rack" }).waitFor();
  await page.getByRole("banner").getByText("Live").waitFor();
  say("the rack, live");
}

/** @param {Page} page @param {number} hosts @param {number} accept */
async function bringUp(page, hosts, accept) {
  const active = page.locator("[data-host][data-state=active]");
  const waiting = page.getByRole("button", { name: /^Accept / }).and(page.locator(":enabled"));
  const steps = new Set();
  let accepted = 0;
  for (;;) {
    for (const unit of await page.locator("[data-host]:not([data-state=active])").all()) {
      const host = await unit.getAttribute("data-host");
      for (const step of await unit.locator("[data-step]:not([data-is=pending])").all()) {
        const text = await step.innerText({ timeout: 1_000 }).catch(() => "");
        const kind = await step.getAttribute("data-step", { timeout: 1_000 }).catch(() => null);
        if (!kind || steps.has(`${host} ${kind}`)) continue;
        steps.add(`${host} ${kind}`);
        say("boot step", { host, step: kind, text: text.replaceAll("\n", " ") });
        if (steps.size === 3) await shots("booting");
      }
    }
    if ((await waiting.count()) > 0) {
      const label = await waiting.first().getAttribute("aria-label");
      await shots(`waiting-${accepted + 1}`);
      await tabTo(page, waiting.first());
      await page.keyboard.press("Enter");
      accepted += 1;
      say("accepted by keyboard", { button: label });
      await page.getByRole("button", { name: label ?? "", exact: true }).waitFor({ state: "detached" });
    }
    if ((await active.count()) >= hosts) break;
    assert.ok(left() > 1, `${await active.count()} of ${hosts} hosts became active in time`);
    await page.waitForTimeout(100);
  }
  assert.ok(accepted >= accept, `${accepted} hosts were accepted by keyboard, ${accept} expected`);
  say("hosts active", {
    hosts: await active.evaluateAll((units) => units.map((unit) => unit.getAttribute("data-host"))),
  });
}

/** @param {Page} page @param {string} template */
async function makeVm(page, template) {
  const name = `page-${Date.now().toString(36)}`;
  await page.getByRole("button", { name: "New VM" }).click();
  const dialog = page.getByRole("dialog", { name: "New VM" });
  await dialog.getByLabel("Name").fill(name);
  await dialog.getByLabel("Template").selectOption(template);
  await dialog.getByRole("button", { name: "Create" }).click();
  await dialog.waitFor({ state: "detached" });
  await page.locator(`[data-vm-row="${name}"][data-phase=running]`).waitFor({ timeout: left() });
  await page.locator(`[data-host] [data-vm="${name}"]`).waitFor();
  say("VM runs", { vm: name });
  return name;
}

/** @param {Page} page @param {string | null} wanted */
async function migrate(page, wanted) {
  const row = wanted ? `[data-vm-row="${wanted}"]` : "[data-vm-row]";
  // The planner may be at work on its own: what it has begun ends first.
  const moving = page.locator("[data-move]:not([data-phase=done]):not([data-phase=aborted])");
  while ((await moving.count()) > 0) {
    assert.ok(left() > 1, "the moves under way ended in time");
    await page.waitForTimeout(100);
  }
  const running = page.locator(`${row}[data-phase=running]`).first();
  await running.waitFor({ timeout: left() });
  const vm = (await running.getAttribute("data-vm-row")) ?? "";
  const place = () => page.locator(`[data-host]:has([data-vm="${vm}"])`).getAttribute("data-host");
  const source = await place();
  const known = await page
    .locator("[data-move]")
    .evaluateAll((moves) => moves.map((each) => each.getAttribute("data-move")));
  await page.locator(`[data-host] [data-vm="${vm}"]`).click();
  const dialog = page.getByRole("dialog", { name: vm, exact: true });
  const select = dialog.getByLabel("Migrate to");
  const target = await select.locator("option:not([value=''])").first().getAttribute("value");
  assert.ok(target, "there is another active host to choose");
  await select.selectOption(target);
  const flights = await watchFlights(page);
  await dialog.getByRole("button", { name: "Migrate" }).click();
  await dialog.waitFor({ state: "detached" });
  say("migration begun by button", { vm, source, target });
  await page.locator(`[data-host="${target}"] [data-ghost="${vm}"]`).waitFor({ timeout: left() });
  await page.screenshot({ path: join(values.shots, "live-moving.png"), fullPage: true });
  await page.locator(`[data-host="${target}"] [data-vm="${vm}"]`).waitFor({ timeout: left() });
  // One that another change of the rack diverts is seen as it began.
  const flight = await flights.flown(`vm/${vm}`, target);
  const tops = flight.tops.map((top) => top[`vm/${vm}`] ?? NaN);
  assertGlides(tops);
  const places = new Set(tops.map(Math.round)).size;
  assert.ok(places > 4, `the VM glided to its new host, seen at ${places} places`);
  const done = page.locator("[data-move][data-phase=done]").filter({ hasText: vm });
  const mine = async () => {
    const ids = await done.evaluateAll((moves) => moves.map((each) => each.getAttribute("data-move")));
    return ids.find((id) => !known.includes(id));
  };
  while (!(await mine())) {
    assert.ok(left() > 1, "the move was shown as done in time");
    await page.waitForTimeout(100);
  }
  const text = await page.locator(`[data-move="${await mine()}"]`).innerText();
  assert.match(text, /took/, "its total time is shown");
  assert.match(text, /stood still/, "its downtime is shown");
  assert.equal(await place(), target);
  say("moved", { vm, target, places, text: text.replaceAll("\n", " ") });
}

/** Pictures in both widths and schemes, on the one page. @param {string} name */
async function shots(name) {
  for (const colorScheme of /** @type {const} */ (["dark", "light"])) {
    await page.emulateMedia({ colorScheme });
    for (const width of [400, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      assert.equal(await overflow(page), 0, `${name}: pixels too wide at ${width}`);
      await page.screenshot({
        path: join(values.shots, `live-${name}-${width}-${colorScheme}.png`),
        fullPage: true,
      });
    }
  }
}

/** @param {Page} page */
async function look(page) {
  for (const colorScheme of /** @type {const} */ (["dark", "light"])) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    assert.deepEqual(await axe(page), [], `axe, ${colorScheme}`);
  }
  say("axe finds nothing");
}

/** Reaches it by the Tab key alone. @param {Page} page @param {Locator} wanted */
async function tabTo(page, wanted) {
  for (let i = 0; i < 300; i += 1) {
    await page.keyboard.press("Tab");
    if (await wanted.evaluate((element) => element === document.activeElement)) return;
  }
  assert.fail("the button is not reached by 300 tabs");
}
