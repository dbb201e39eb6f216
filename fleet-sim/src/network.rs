//! A network namespace of the test's own, behind a pair of veth devices: what goes through it can be
//! cut, lost and slowed down, without touching the machine's network. Needs root, iproute2 and iptables.
//!
//! Addresses are from 198.18.0.0/15 (RFC 2544, benchmarks), by the process id. A kernel without `netem` has no delay of
//! its own: a link that is slow makes its packets wait (`tbf`).

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, ensure};

/// Of all networks here, for the database's list of who may connect.
pub const RANGE: &str = "198.18.0.0/15";

/// A namespace and the way to it.
#[derive(Debug)]
pub struct Network {
    name: String,
    device: String,
    /// The end of the link in the namespace.
    pub inside: IpAddr,
    /// Its other end.
    pub outside: IpAddr,
}

impl Network {
    /// Makes one; everything goes through.
    pub fn create() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id().wrapping_mul(8) + NEXT.fetch_add(1, Ordering::Relaxed);
        // A /30 for each: 2^15 of them.
        let base = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (number & 0x7fff) * 4;
        let address = |offset| IpAddr::V4(Ipv4Addr::from(base + offset));
        let network = Self {
            name: format!("procfleet-{number:x}"),
            device: format!("pf{number:x}o"),
            inside: address(2),
            outside: address(1),
        };
        let (name, device, peer) = (&network.name, &network.device, format!("pf{number:x}i"));
        ip(&["netns", "add", name])?;
        ip(&["link", "add", device, "type", "veth", "peer", "name", &peer, "netns", name])?;
        ip(&["addr", "add", &format!("{}/30", network.outside), "dev", device])?;
        ip(&["link", "set", device, "up"])?;
        for arguments in [
            &["addr", "add", &format!("{}/30", network.inside), "dev", &peer][..],
            &["link", "set", &peer, "up"],
            &["link", "set", "lo", "up"],
        ] {
            ip(&[&["-n", name], arguments].concat())?;
        }
        Ok(network)
    }

    /// For programs that run in it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops, without a word, everything that comes in or goes out over the link.
    pub fn cut(&self) -> Result<()> {
        self.drop_where("INPUT", &["!", "-i", "lo"])?;
        self.drop_where("OUTPUT", &["!", "-o", "lo"])
    }

    /// Drops what matches on its way in (`INPUT`) or out (`OUTPUT`).
    pub fn drop_where(&self, chain: &str, matching: &[&str]) -> Result<()> {
        self.iptables(&[&["-A", chain], matching, &["-j", "DROP"]].concat())
    }

    /// Sends at most this fast in both directions; what has to wait longer is lost.
    pub fn slow_down(&self, kbit_per_second: u32, longest_ms: u32) -> Result<()> {
        let (rate, latency) = (format!("{kbit_per_second}kbit"), format!("{longest_ms}ms"));
        let shape = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", &latency];
        let inner = self.device.replace('o', "i");
        run("tc", &[&["qdisc", "replace", "dev", &self.device][..], &shape].concat())?;
        run("tc", &[&["-n", &self.name, "qdisc", "replace", "dev", &inner][..], &shape].concat())
    }

    /// As at first.
    pub fn heal(&self) -> Result<()> {
        self.iptables(&["-F"])?;
        let inner = self.device.replace('o', "i");
        // An error: it was not slow.
        drop(run("tc", &["qdisc", "del", "dev", &self.device, "root"]));
        drop(run("tc", &["-n", &self.name, "qdisc", "del", "dev", &inner, "root"]));
        Ok(())
    }

    fn iptables(&self, arguments: &[&str]) -> Result<()> {
        let inside = ["netns", "exec", &self.name, "iptables", "-w"];
        ip(&[&inside, arguments].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The link goes with the namespace. What still runs in it are children that die now.
        drop(ip(&["link", "delete", &self.device]));
        drop(ip(&["netns", "delete", &self.name]));
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {errors}(needs root)", arguments.join(" "));
    Ok(())
}
