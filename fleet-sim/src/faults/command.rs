//! `fleet-sim faults`: the long form of the fault suite.

use anyhow::{Result, ensure};
use clap::Args;

use super::{Does, FAULTS, Fault, Scale, Verdict, run_alone, run_together};

/// Which faults, and how much of them.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Only these; none: all.
    only: Vec<String>,
    /// Simulated agents.
    #[arg(long, default_value_t = Scale::LONG.agents)]
    agents: u64,
    /// How often each fault is done.
    #[arg(long, default_value_t = Scale::LONG.repeats)]
    repeats: u32,
    /// As in the test suite: few agents, short stops.
    #[arg(long)]
    short: bool,
}

/// Does them and prints each verdict as JSON; ends with the first that is not "all there, once".
pub async fn run(arguments: Arguments) -> Result<()> {
    let scale = if arguments.short {
        Scale::SHORT
    } else {
        Scale { agents: arguments.agents, repeats: arguments.repeats, ..Scale::LONG }
    };
    let names = FAULTS.map(|fault| fault.name);
    for name in &arguments.only {
        ensure!(names.contains(&name.as_str()), "there is no {name}, but {}", names.join(", "));
    }
    let wanted = |fault: &Fault| {
        arguments.only.is_empty() || arguments.only.iter().any(|name| name == fault.name)
    };
    let faults: Vec<Fault> = FAULTS.into_iter().filter(wanted).collect();
    for in_network in [false, true] {
        if let Some(verdict) = run_together(&faults, in_network, scale).await? {
            show(if in_network { "in a network" } else { "on one machine" }, &verdict)?;
        }
    }
    for fault in faults.iter().filter(|fault| matches!(fault.does, Does::Alone(_))) {
        show(fault.name, &run_alone(fault.name, scale).await?)?;
    }
    Ok(())
}

fn show(name: &str, verdict: &Verdict) -> Result<()> {
    println!("{name}: {}", serde_json::to_string_pretty(verdict)?);
    Ok(())
}
