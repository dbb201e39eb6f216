import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./styles/base.css";
import "./styles/page.css";
import "./styles/data.css";
import { App } from "./app";
import { follow } from "./router";
import { recall } from "./session";

const page = document.getElementById("page");
if (page) {
  document.addEventListener("click", follow);
  render(<App />, page);
  void recall();
}
