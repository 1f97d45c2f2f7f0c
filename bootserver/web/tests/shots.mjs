// Takes pictures of the page over the mock server: `node tests/shots.mjs DIR`. For eyes, not for asserting.

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { launch, newPage } from "./browser.mjs";
import { stats } from "./mock/rack.mjs";
import { Mock, PASSWORD } from "./mock/server.mjs";
import { busyScene } from "./scene.mjs";

const dir = process.argv[2] ?? "shots";
mkdirSync(dir, { recursive: true });
const mock = new Mock();
await mock.start();
const browser = await launch();

for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
  for (const width of [1280, 400]) {
    const { page, wrong, close } = await newPage(browser, { colorScheme, viewport: { width, height: 900 } });
    const shot = (/** @type {string} */ name, fullPage = true) =>
      page.screenshot({ path: join(dir, `${name}-${width}-${colorScheme}.png`), fullPage });
    mock.forget();
    await page.goto(mock.url);
    await page.getByLabel("Password").waitFor();
    await shot("login");
    await page.getByLabel("Password").fill(PASSWORD);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("heading", { name: "Rack" }).waitFor();
    busyScene(mock);
    for (let i = 0; i < 40; i += 1) {
      mock.change((view) => {
        view.at_ms = Date.now() + i;
        for (const [n, each] of view.hosts.entries()) {
          if (each.stats)
            each.stats = stats(0.4 + 0.3 * n + 0.4 * Math.sin(i / 3 + n), 900 + 200 * Math.cos(i / 9 + n));
        }
      });
      await page.waitForTimeout(30);
    }
    await shot("rack");
    await page.locator("[data-vm=counter]").click();
    await page.getByRole("button", { name: "Show console" }).click();
    await page.getByText("counter at 10021").waitFor();
    await shot("vm", false);
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "New VM" }).click();
    await page.getByRole("button", { name: "Create" }).click();
    await shot("create", false);
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Balance" }).click();
    await page.getByText("These stay").waitFor();
    await shot("balance", false);
    await page.keyboard.press("Escape");
    await page.locator("[data-host] summary").first().click();
    await page
      .locator("[data-host]")
      .first()
      .screenshot({ path: join(dir, `details-${width}-${colorScheme}.png`) });
    mock.change((view) => Object.assign(view, { hosts: [], vms: [], disks: [], moves: [], events: [] }));
    mock.down(true);
    await page.getByText("Connection lost").first().waitFor();
    await shot("empty-lost");
    mock.down(false);
    if (wrong.length > 0) console.error(wrong);
    await close();
  }
}
await browser.close();
mock.stop();
