// How long the page takes, by the browser's own clocks: first paints and whole views after a cold
// load, and the slowest event of each interaction (Event Timing: from the input to the next paint).
// Started by `fleet-sim bench-web`; prints a Markdown table.
import { chromium } from "playwright-core";
import { given, Visitor } from "./kit.mjs";
import { FLAGS } from "./flags.mjs";

const ROUNDS = 5;
const median = (values) => values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)];
const rows = [];
const report = (what, values, target) => rows.push(`| ${what} | ${median(values).toFixed(0)} | ${Math.max(...values).toFixed(0)} | ${target} |`);

/** ms since the navigation began until `selector` is there `count` times. */
const drawn = (page, selector, count) => page.evaluate(([selector, count]) => new Promise((done) => {
  const look = () => (document.querySelectorAll(selector).length >= count ? requestAnimationFrame(() => done(performance.now())) : setTimeout(look, 4));
  look();
}), [selector, count]);

const firstPaint = (page) => page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime);

async function load(state, browser, path, selector, count) {
  const visitor = await Visitor.arrive(browser, { storageState: state });
  await visitor.open(path);
  const whole = await drawn(visitor.page, selector, count);
  return { visitor, paint: await firstPaint(visitor.page), whole };
}

async function loads(state, browser, what, path, selector, count) {
  const [paints, wholes] = [[], []];
  for (let round = 0; round < ROUNDS; round += 1) {
    const { visitor, paint, whole } = await load(state, browser, path, selector, count);
    paints.push(paint);
    wholes.push(whole);
    await visitor.context.close();
  }
  report(`${what}: first contentful paint`, paints, "< 1000");
  report(`${what}: drawn in full`, wholes, "< 1000");
}

/** The longest of the events that `act` causes, each round. */
async function events(visitor, what, act) {
  const { page } = visitor;
  await visitor.settled();
  const longest = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    await page.evaluate(() => {
      window.slowest = 0;
      window.observer = new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.slowest = Math.max(window.slowest, entry.duration);
      });
      window.observer.observe({ type: "event", durationThreshold: 16 });
    });
    await act(round);
    await page.waitForTimeout(300);
    longest.push(await page.evaluate(() => {
      window.observer.disconnect();
      return window.slowest;
    }));
    await visitor.settled();
  }
  report(`${what}: slowest event to next paint`, longest, "< 100");
}

async function interactions(state, browser) {
  const fleet = (await load(state, browser, "/?from=-1d", ".virtual-body [role=row]", 20)).visitor;
  await events(fleet, "typing in the filter of 1,000 hosts", (round) => fleet.page.getByRole("searchbox").pressSequentially(`${round}`));
  await fleet.page.getByRole("searchbox").fill("");
  const orders = ["CPU", "Memory", "Load", "State", "Host"];
  await events(fleet, "sorting 1,000 hosts", (round) => fleet.page.getByRole("columnheader", { name: orders[round], exact: false }).first().getByRole("button").click());
  await events(fleet, "scrolling 1,000 hosts", async () => {
    await fleet.page.locator(".virtual").hover();
    await fleet.page.mouse.wheel(0, 4000);
  });
  await fleet.context.close();
  const host = (await load(state, browser, `/host/${given.hostId}?from=-1d`, ".plot canvas", 3)).visitor;
  await host.settled();
  const box = await host.page.locator(".charts .u-over").first().boundingBox();
  const y = box.y + box.height / 2;
  await events(host, "moving over four charts of 24 h", (round) => host.page.mouse.move(box.x + 40 + round * 80, y, { steps: 20 }));
  await events(host, "choosing a moment", (round) => host.page.mouse.click(box.x + 60 + round * 70, y));
  await events(host, "zooming by a drag", async () => {
    await host.page.mouse.move(box.x + box.width * 0.3, y);
    await host.page.mouse.down();
    await host.page.mouse.move(box.x + box.width * 0.7, y, { steps: 10 });
    await host.page.mouse.up();
  });
  await host.context.close();
}

const browser = await chromium.launch({ executablePath: given.chromium, headless: true, args: FLAGS });
try {
  const first = await Visitor.arrive(browser);
  await first.open("/");
  await first.logIn(given.viewerKey);
  const state = await first.context.storageState();
  await first.context.close();
  await loads(state, browser, "1,000 hosts with 24 h of lines", "/?from=-1d", ".virtual-body .spark path[d*=L]", 20);
  await loads(state, browser, "a host over 24 h, 4 stacks and the table", `/host/${given.hostId}?from=-1d`, ".charts .plot canvas, #tab-content tbody tr:nth-child(5)", 4);
  await interactions(state, browser);
} finally {
  await browser.close();
}
console.log(["| what | median ms | worst ms | target ms |", "|---|--:|--:|--:|", ...rows].join("\n"));
