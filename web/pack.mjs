// Packs what vite built, so that the server compresses nothing when it is asked, and checks that a
// first visit stays small.
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const LIMIT_BYTES = 250_000;

const files = (directory) =>
  readdirSync(directory).flatMap((name) => {
    const path = join(directory, name);
    if (statSync(path).isDirectory()) return files(path);
    return name.startsWith(".") || /\.(br|gz)$/.test(name) ? [] : [path];
  });

let total = 0;
for (const path of files("dist")) {
  const plain = readFileSync(path);
  const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } };
  writeFileSync(`${path}.br`, brotliCompressSync(plain, quality));
  const gzip = gzipSync(plain, { level: 9 });
  writeFileSync(`${path}.gz`, gzip);
  total += gzip.length;
}
// vite empties the directory, which git and cargo must find in every checkout.
writeFileSync("dist/.gitignore", "*\n!.gitignore\n");
console.log(`a first visit transfers ${total} bytes`);
if (total > LIMIT_BYTES) throw new Error(`more than ${LIMIT_BYTES} bytes`);
