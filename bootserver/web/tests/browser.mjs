// Chromium as the tests use it, and what they ask of any page.

import assert from "node:assert/strict";
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
  // What is waited for comes at once, but for a machine that has no time for us.
  page.setDefaultTimeout(60_000);
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

/** Where flights are looked at, as parts of their time. */
const PARTS = [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1];

/**
 * A flight of what carries `data-slide` in the rack (src/view/slide.svelte.ts).
 * @typedef {object} Flight
 * @property {string} slid what flies: its `data-slide`
 * @property {string | undefined} on the host that it flew to
 * @property {Record<string, number>[]} tops where the top of each that can fly is, at each of `PARTS`
 * @property {"finished" | "cancelled" | null} end null while it flies
 */

/**
 * Notes every flight of the page from now on. Frames are not counted: of a flight of 650 ms a busy machine draws one,
 * or none. Instead each is stopped when it begins, set to one time after the other, and then left to fly by itself.
 * @param {Page} page
 */
export async function watchFlights(page) {
  const noted = await page.evaluateHandle((parts) => {
    /** @type {Flight[]} */
    const noted = [];
    /** Those that one drawing of the rack sends off. @type {{ flight: Animation, note: Flight }[]} */
    let together = [];
    const look = () => {
      const begun = together;
      together = [];
      for (const { flight } of begun) flight.pause();
      const tops = parts.map((part) => {
        for (const { flight } of begun)
          flight.currentTime = part * Number(flight.effect?.getComputedTiming().endTime);
        const able = /** @type {HTMLElement[]} */ ([...document.querySelectorAll("#rack [data-slide]")]);
        return Object.fromEntries(
          able.map((each) => [each.dataset["slide"], each.getBoundingClientRect().top]),
        );
      });
      for (const { flight, note } of begun) {
        flight.currentTime = 0;
        flight.play();
        note.tops = tops;
        flight.finished.then(
          () => (note.end = "finished"),
          () => (note.end = "cancelled"),
        );
        noted.push(note);
      }
    };
    const { animate } = Element.prototype;
    /** @this {Element} @param {Parameters<typeof animate>} how */
    Element.prototype.animate = function (...how) {
      const flight = animate.apply(this, how);
      const slid = this instanceof HTMLElement && this.dataset["slide"];
      if (slid) {
        const on = this.parentElement?.closest("[data-host]")?.getAttribute("data-host") ?? undefined;
        // After the drawing, when all that it sends off have begun, and before a frame or anything else.
        if (together.length === 0) queueMicrotask(look);
        together.push({ flight, note: { slid, on, tops: [], end: null } });
      }
      return flight;
    };
    return noted;
  }, PARTS);
  return {
    /** All so far. */
    all: () => noted.evaluate((noted) => noted),
    /** Waits until one has flown, to that host if it is named, and has come to its end. @param {string} slid @param {string} [to] */
    flown: async (slid, to) => {
      const seen = await page.waitForFunction(
        ([noted, slid, to]) =>
          noted.find((each) => each.slid === slid && each.end && (to === undefined || each.on === to)),
        /** @type {const} */ ([noted, slid, to]),
        // At times that no frame decides.
        { polling: 50 },
      );
      return /** @type {Flight} */ (await seen.jsonValue());
    },
  };
}

/** That it goes on from place to place and never back. @param {number[]} tops */
export function assertGlides(tops) {
  const steps = tops.slice(1).map((top, i) => top - (tops[i] ?? NaN));
  const ahead = Math.sign((tops.at(-1) ?? NaN) - (tops[0] ?? NaN));
  assert.ok(steps.length > 1 && steps.every((step) => step * ahead > 0), `it glides: ${tops.join(" ")}`);
}
