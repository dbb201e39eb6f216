//! The tool that asks the server what its API description allows, from `PyPI`, in the version named
//! here, in `.procfleet/tools`. A test of `fleet-sim` runs it; `cargo xtask test` installs it.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::apt;
use crate::project::Project;
use crate::run::{exists, shown};

/// Of `PyPI`.
const WHEEL: &str = "schemathesis==4.32.5";

/// Installs it unless this version is there.
pub(crate) fn ensure(project: &Project) -> Result<()> {
    let tools = project.private("tools/schemathesis");
    let version = tools.join("installed");
    if std::fs::read_to_string(&version).is_ok_and(|text| text == WHEEL) {
        return Ok(());
    }
    if !exists("python3") {
        apt::install(&["python3", "python3-pip"], "it runs schemathesis")?;
    }
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--upgrade", "--disable-pip-version-check"]);
    pip.args(["--root-user-action=ignore", "--target"]).arg(&tools).arg(WHEEL);
    ensure!(shown(&mut pip)?.success(), "pip could not install {WHEEL}");
    std::fs::write(version, WHEEL)?;
    Ok(())
}
