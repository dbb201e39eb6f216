// Searching, enrolling, the server's own view, and what stands where there is nothing.
import assert from "node:assert/strict";
import { given, Visitor } from "./kit.mjs";

async function visit(browser, path, key = given.adminKey, options = {}) {
  const visitor = await Visitor.arrive(browser, options);
  await visitor.open(path);
  await visitor.logIn(key);
  return visitor;
}

export async function processes_are_found_by_what_is_known_of_them(browser) {
  const visitor = await visit(browser, "/search");
  const { page } = visitor;
  await visitor.accessible("search");
  await page.getByRole("searchbox").fill("database=billing");
  await page.keyboard.press("Enter");
  await page.locator(`#main a[href*="${given.culpritId}"]`).waitFor();
  await visitor.picture("search-dark");
  await visitor.accessible("search, found");
  const by = async (field, words) => {
    await page.getByLabel("Search by").selectOption(field);
    await page.getByRole("searchbox").fill(words);
    await page.keyboard.press("Enter");
    await visitor.settled();
  };
  await by("md5", given.culpritId);
  await page.locator(`#main a[href*="${given.culpritId}"]`).waitFor();
  await by("pid", String(given.culpritPid));
  await page.locator(`#main a[href*="${given.culpritId}"]`).waitFor();
  await by("owner", given.owner);
  await page.locator("#main table tbody tr").first().waitFor();
  await by("port", "1");
  await page.getByText("Nothing was found.").waitFor();
  await by("port", "nonsense");
  await page.getByText("This must be a number.").waitFor();
  await visitor.leave();
}

export async function a_host_is_enrolled_with_a_fresh_token(browser) {
  const visitor = await visit(browser, "/hosts");
  const { page } = visitor;
  const name = `browser test ${Date.now()}`;
  await page.getByLabel("Name").fill(name);
  await page.getByRole("button", { name: "Make a token" }).click();
  const command = page.locator(".enrol-command pre");
  await command.waitFor();
  const text = await command.innerText();
  assert.match(text, /pfj1_[\w-]+/);
  assert.doesNotMatch(text, /enroll .*pfj1_/, "the token is not an argument");
  await page.getByRole("cell", { name }).waitFor();
  await visitor.picture("hosts-dark");
  await visitor.accessible("hosts");
  await page.getByRole("row", { name: new RegExp(name) }).getByRole("button", { name: "Revoke" }).click();
  await page.getByRole("row", { name: new RegExp(`${name}.*revoked`) }).waitFor();
  await visitor.leave();
}

export async function a_viewer_is_told_what_is_not_theirs(browser) {
  const visitor = await visit(browser, "/hosts", given.viewerKey);
  await visitor.page.getByText("role admin").waitFor();
  await visitor.leave();
}

export async function the_server_tells_of_itself(browser) {
  const visitor = await visit(browser, "/server", given.viewerKey);
  const { page } = visitor;
  await page.getByRole("region", { name: "Maintenance steps" }).waitFor();
  await visitor.settled();
  await visitor.picture("server-dark");
  await visitor.accessible("server");
  await visitor.leave();
}

export async function nothing_and_failure_are_drawn(browser) {
  const visitor = await visit(browser, "/server");
  const { page } = visitor;
  visitor.expected.push("404", "503");
  await visitor.open("/host/no-such-host");
  await page.getByRole("alert").first().waitFor();
  await visitor.accessible("no such host");
  await visitor.open("/?q=no-such-host-at-all");
  await page.getByText("No host matches the filter.").waitFor();
  await page.route("**/v1/hosts?**", (route) => route.fulfill({
    status: 503, contentType: "application/problem+json", body: JSON.stringify({ type: "x", title: "x", status: 503, code: "database_unavailable", detail: "The database does not answer." }),
  }));
  await page.reload();
  await page.getByText("The database does not answer.").waitFor();
  await visitor.picture("failed-state");
  await page.unroute("**/v1/hosts?**");
  await page.getByRole("button", { name: "Try again" }).click();
  await page.getByText("No host matches the filter.").waitFor();
  await visitor.leave();
}

export async function it_fits_a_phone(browser) {
  const visitor = await visit(browser, `/host/${given.simulatedId}?from=-3h`, given.viewerKey, { viewport: { width: 390, height: 800 } });
  await visitor.page.locator(".plot canvas").first().waitFor();
  await visitor.settled();
  await visitor.picture("host-phone");
  const wide = await visitor.page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `${wide} px too wide`);
  await visitor.leave();
}
