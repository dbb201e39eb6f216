// How Chromium is started: without a sandbox (tests run as root in containers) and without a word to
// anybody else.
export const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
