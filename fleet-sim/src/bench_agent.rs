//! What one collection costs: the real agent in both tiers, beside what else people use, in one run.
//!
//! The load: children that are `tail -f /dev/null`, each with a command line of its own of more than 300
//! characters and waking once a second; and idle TCP connections over loopback, both ends on this host.
//! `procfleet-agent run` samples the whole host every second into a spool of its own; nobody answers its
//! uplink. The reports then say what CPU all of the agent used from tick to tick (collectors, encoding, fsync,
//! uplink) and how much memory it holds. The first ticks, which describe everything, do not count.
//!
//! Meanwhile the same processes are read by the simplest loops there can be (its module `reference`), in the same
//! seconds on the same machine: a ratio survives a loaded machine, a number of milliseconds does not. Then
//! the others have their turn ([`peers`]), each from its Debian package, which is installed if it is missing.
//!
//! Limits: ticks are a second apart, so caches are warmer than at the default of thirty. Descriptors that
//! stay open hold kernel memory that no RSS shows. `--minutes` bounds the whole: what finds no time
//! is left out, and the table says so.

mod children;
mod connections;
mod peers;
mod reference;
mod running;
mod table;

use std::time::{Duration, Instant};

use anyhow::Result;

use self::children::Children;
use self::connections::Connections;
use self::table::Setting;

/// `fleet-sim bench-agent`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Children of each part of the table.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 3000])]
    children: Vec<usize>,
    /// Connections of one more part, with the second number of children (or the only one).
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Ticks that count.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    ticks: u16,
    /// Tiers of the agent.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Tier::A, Tier::B])]
    tiers: Vec<Tier>,
    /// Every process gets a row, instead of the default profile.
    #[arg(long)]
    keep_all: bool,
    /// The agent alone.
    #[arg(long)]
    no_peers: bool,
    /// After this many minutes nothing new is begun.
    #[arg(long, default_value_t = 10)]
    minutes: u32,
}

/// What the agent may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Tier {
    /// BPF.
    A,
    /// procfs and netlink.
    B,
}

impl Tier {
    /// Of `[collect] tier`.
    fn setting(self) -> &'static str {
        match self {
            Self::A => "auto",
            Self::B => "proc",
        }
    }
}

/// `fleet-sim hold-connections`: the bench's own child.
#[derive(Debug, clap::Args)]
pub struct HoldArguments {
    /// How many, both ends of each.
    count: usize,
}

/// Holds connections until standard input ends.
pub fn hold(arguments: &HoldArguments) -> Result<()> {
    connections::hold(arguments.count)
}

/// Measures and prints a Markdown table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let agent = running::agent_binary()?;
    let until = Instant::now() + Duration::from_mins(1) * arguments.minutes;
    let peers = if arguments.no_peers { Vec::new() } else { peers::ready()? };
    let mut settings: Vec<(usize, usize)> =
        arguments.children.iter().map(|count| (*count, 0)).collect();
    if let Some((count, _)) = settings.get(1).or(settings.first()).copied()
        && arguments.connections > 0
    {
        settings.push((count, arguments.connections));
    }
    println!("{}", table::HEAD);
    for (count, connections) in settings {
        let _children = Children::start(count)?;
        let _connections = Connections::start(connections)?;
        let setting = Setting { children: count, connections };
        for &tier in &arguments.tiers {
            if Instant::now() > until {
                println!(
                    "{}",
                    table::left_out(&format!("procfleet-agent, tier {tier:?}"), setting)
                );
                continue;
            }
            let (reports, passes) = running::measure(&agent, arguments, tier)?;
            println!("{}", table::agent(tier, setting, &reports)?);
            if Some(&tier) == arguments.tiers.last() {
                println!("{}", table::references(setting, &passes)?);
            }
        }
        for peer in &peers {
            if Instant::now() > until {
                println!("{}", table::left_out(peer.name, setting));
                continue;
            }
            match peer.measure() {
                Ok(cost) => println!("{}", table::peer(peer.name, setting, &cost)?),
                Err(error) => println!("{}", table::failed(peer.name, setting, &error)),
            }
        }
    }
    Ok(())
}

/// Smallest, middle and largest.
fn spread(values: impl Iterator<Item = f64>) -> Result<(f64, f64, f64)> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(&least), Some(&median), Some(&most)) => Ok((least, median, most)),
        _ => anyhow::bail!("nothing was measured"),
    }
}
