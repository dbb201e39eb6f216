import { defineConfig } from "vite";

// One script, one style sheet, each named by its content's hash: the server lets browsers keep them
// for ever. The style sheet's images are files, never `data:`, which the page's policy refuses.
export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact", legalComments: "none" },
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
