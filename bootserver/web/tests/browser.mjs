// Chromium as the tests use it, and what they ask of any page.

import axeCore from "axe-core";
import { chromium } from "playwright-core";

/** @import { Browser, BrowserContextOptions, Page } from "playwright-core" */

/** @returns {Promise<Browser>} */
export function launch() {
  return chromium.launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/**
 * A page in a session of its own. What goes wrong in it (uncaught errors, what the server's policy blocks) is
 * collected in `wrong`.
 * @param {Browser} browser @param {BrowserContextOptions} [options]
 */
export async function newPage(browser, options = {}) {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    viewport: { width: 1280, height: 900 },
    reducedMotion: "no-preference",
    ...options,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  /** @type {string[]} */
  const wrong = [];
  page.on("pageerror", (error) => wrong.push(`uncaught: ${error.message}`));
  page.on("console", (message) => {
    if (/Content Security Policy|Refused to/i.test(message.text())) wrong.push(message.text());
  });
  return { page, wrong, close: () => context.close() };
}

/** What axe-core finds, a line each. @param {Page} page @returns {Promise<string[]>} */
export async function axe(page) {
  await page.evaluate(axeCore.source);
  return page.evaluate(async () => {
    /** @type {typeof axeCore} */
    const run = /** @type {any} */ (globalThis).axe;
    const { violations } = await run.run(document, { resultTypes: ["violations"] });
    return violations.flatMap(({ id, nodes }) =>
      nodes.map((node) => `${id}: ${node.target.join(" ")}: ${node.failureSummary ?? ""}`),
    );
  });
}

/** How far the page is wider than its window, pixels. @param {Page} page */
export function overflow(page) {
  return page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
}
