//! `doctor`: what is wrong with a server's surroundings, and what to do about it.
//!
//! Looks only: nothing is changed, and no secret is printed. Run it where the server runs, as the same user and
//! with the same configuration. How full the database's disk is cannot be asked over SQL: only how large the
//! database is can. Whether a load balancer leads here is not tried.

use std::fmt::Display;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Instant;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::table::{Output, cell, print_json, print_table};
use crate::authority;
use crate::config::{Config, ConfigError};
use crate::error::Chain;
use crate::store::Store;

/// Oldest PostgreSQL, as `server_version_num`.
const MIN_VERSION: i32 = 150_000;
/// Difference of the clocks that is told, and the one that is too much.
const CLOCKS: (Duration, Duration) = (Duration::seconds(2), Duration::MINUTE);
/// Time before the end of an authority's and of a door's certificate when that is told.
const NEAR_END: (Duration, Duration) = (Duration::days(180), Duration::days(14));

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, and should be seen to.
    Warn,
    /// Does not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub check: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub says: String,
    /// What to do; null: nothing.
    pub advice: Option<&'static str>,
}

/// What is gathered.
#[derive(Default)]
struct Report(Vec<Check>);

impl Report {
    fn ok(&mut self, check: &'static str, says: impl Display) {
        self.0.push(Check { check, state: State::Ok, says: says.to_string(), advice: None });
    }

    fn add(&mut self, check: &'static str, state: State, says: impl Display, advice: &'static str) {
        let advice = (state != State::Ok).then_some(advice);
        self.0.push(Check { check, state, says: says.to_string(), advice });
    }

    fn fail(
        &mut self,
        check: &'static str,
        error: &(dyn std::error::Error + 'static),
        advice: &'static str,
    ) {
        self.add(check, State::Fail, Chain(error), advice);
    }
}

/// An error that was written down.
#[derive(Debug)]
struct Text(String);

impl Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Text {}

/// Looks at everything and prints it. An error if anything does not work.
pub(super) async fn run(
    config: Result<Config, ConfigError>,
    output: Output,
    now: impl Fn() -> OffsetDateTime,
) -> anyhow::Result<()> {
    let mut report = Report::default();
    match &config {
        Ok(config) => {
            report.ok("configuration", "can be read");
            doors(config, &mut report, now());
            database(config, &mut report, now).await;
        }
        Err(error) => report.fail("configuration", error, "correct the key or variable it names"),
    }
    let failed = report.0.iter().filter(|check| check.state == State::Fail).count();
    print(&report.0, output)?;
    anyhow::ensure!(failed == 0, "{failed} of {} checks failed", report.0.len());
    Ok(())
}

fn print(checks: &[Check], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let good = checks.iter().all(|check| check.state != State::Fail);
        return print_json(&json!({ "ok": good, "checks": checks }));
    }
    let lines = checks.iter().map(|check| {
        let advice = check.advice.map(|advice| format!(": {advice}")).unwrap_or_default();
        let says = json!(format!("{}{advice}", check.says));
        vec![cell(Some(&json!(check.state))), check.check.to_owned(), cell(Some(&says))]
    });
    print_table(&lines.collect::<Vec<_>>())
}

fn doors(config: &Config, report: &mut Report, now: OffsetDateTime) {
    listen("agent door", config.agent_door.listen, report);
    listen("operator door", config.operator_door.listen, report);
    let operator = &config.operator_door;
    match &operator.tls_certificate_file {
        Some(file) => certificate(file, report, now),
        None if operator.listen.ip().is_loopback() => {
            report.ok("operator door TLS", "none, and none needed on this address");
        }
        None => report.add(
            "operator door TLS",
            if operator.insecure { State::Warn } else { State::Fail },
            "none: API keys would travel in clear",
            "set operator_door.tls_certificate_file and tls_key_file, or listen on 127.0.0.1",
        ),
    }
    let endpoints = config.endpoints();
    let shut_in = endpoints.iter().all(|endpoint| {
        let host = endpoint.parse::<reqwest::Url>().ok();
        let host = host.as_ref().and_then(reqwest::Url::host_str).unwrap_or_default();
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    let state = if shut_in { State::Warn } else { State::Ok };
    let advice = "no other host reaches that: set agent_endpoints";
    report.add("agent endpoints", state, endpoints.join(", "), advice);
}

fn listen(check: &'static str, address: SocketAddr, report: &mut Report) {
    match TcpListener::bind(address) {
        Ok(_) => report.ok(check, format!("{address} is free: no server runs here")),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            report.ok(
                check,
                format!("{address} is in use, by a server that runs or another program"),
            );
        }
        Err(error) => report.fail(
            check,
            &Text(format!("cannot listen on {address}: {error}")),
            "choose an address of this machine and a port that this user may have",
        ),
    }
}

fn certificate(file: &Path, report: &mut Report, now: OffsetDateTime) {
    let check = "operator door TLS";
    let end =
        CertificateDer::from_pem_file(file).map_err(|error| error.to_string()).and_then(|der| {
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
            Ok(parsed.validity().not_after.to_datetime())
        });
    match end {
        Ok(end) => expiry(check, "the certificate", (end, NEAR_END.1), report, now),
        Err(error) => report.fail(
            check,
            &Text(format!("cannot read {}: {error}", file.display())),
            "give the file a PEM chain, leaf first, that this user may read",
        ),
    }
}

fn expiry(
    check: &'static str,
    what: &str,
    (end, near): (OffsetDateTime, Duration),
    report: &mut Report,
    now: OffsetDateTime,
) {
    let left = end - now;
    let state = match left {
        left if left <= Duration::ZERO => State::Fail,
        left if left <= near => State::Warn,
        _ => State::Ok,
    };
    let says = format!("{what} ends on {}, in {} days", end.date(), left.whole_days());
    report.add(
        check,
        state,
        says,
        "replace it: `procfleet-server authority rotate`, or a new file",
    );
}

async fn database(config: &Config, report: &mut Report, now: impl Fn() -> OffsetDateTime) {
    let url = match config.database_url() {
        Ok(url) => url,
        Err(error) => return report.fail("database", &error, "say where it is"),
    };
    let store = match Store::connect(url.expose(), 2).await {
        Ok(store) => store,
        Err(error) => {
            let advice = "is it running, and are host, user, password and database right?";
            return report.fail("database", &Text(format!("{url}: {}", Chain(&error))), advice);
        }
    };
    let asked = (Instant::now(), now());
    let facts = match store.facts().await {
        Ok(facts) => facts,
        Err(error) => return report.fail("database", &error, "see the database's log"),
    };
    let round_trip = Duration::try_from(asked.0.elapsed()).unwrap_or_default();
    report.ok("database", format!("{url} answers"));
    let (major, minor) = (facts.version / 10_000, facts.version % 10_000);
    let state = if facts.version < MIN_VERSION { State::Fail } else { State::Ok };
    let says = format!("PostgreSQL {major}.{minor}");
    report.add("database version", state, says, "PostgreSQL 15 is the oldest that works");
    match (&facts.timescaledb, facts.timescaledb_offered) {
        (Some(version), _) => report.ok("TimescaleDB", version),
        (None, offered) => {
            let says = if offered { "installed, not in this database" } else { "not installed" };
            let advice = "plain PostgreSQL works, without compression: an empty database gets it by `migrate` if it is \
                          in shared_preload_libraries";
            report.add("TimescaleDB", State::Warn, says, advice);
        }
    }
    clocks(facts.now - (asked.1 + round_trip / 2), round_trip, report);
    let mebibytes = facts.bytes >> 20;
    report.ok(
        "database size",
        format!("{mebibytes} MiB; how full its disk is cannot be asked over SQL"),
    );
    match store.check_schema().await {
        Ok(()) => report.ok("schema", "as this program needs it"),
        Err(error) => {
            return report.fail(
                "schema",
                &error,
                "nothing below can be looked at before that is right",
            );
        }
    }
    authorities(config, &store, report, now()).await;
    versions(&store, report).await;
}

fn clocks(difference: Duration, round_trip: Duration, report: &mut Report) {
    let apart = difference.abs() - round_trip / 2;
    let state = match apart {
        apart if apart > CLOCKS.1 => State::Fail,
        apart if apart > CLOCKS.0 => State::Warn,
        _ => State::Ok,
    };
    let says = format!(
        "the database's is {:+.3} s from this machine's (±{:.3} s)",
        difference.as_seconds_f64(),
        round_trip.as_seconds_f64() / 2.0
    );
    let advice = "let both keep time by NTP: deadlines and certificates are judged by both";
    report.add("clocks", state, says, advice);
}

async fn authorities(config: &Config, store: &Store, report: &mut Report, now: OffsetDateTime) {
    let rows = match store.authorities().await {
        Ok(rows) => rows,
        Err(error) => return report.fail("authorities", &error, "see the database's log"),
    };
    let file = &config.ca_key_file;
    match authority::open(&rows, file) {
        Ok(_) => report.ok("sealing key", format!("{} opens the authorities", file.display())),
        Err(error) if rows.is_empty() => {
            return report.fail("authorities", &error, "run `procfleet-server init`");
        }
        Err(error) => report.fail(
            "sealing key",
            &error,
            "ca_key_file must be the file that `init` made, the same for every replica, readable by this user alone",
        ),
    }
    for row in rows {
        let what = format!("the {} {} authority", row.state, row.purpose);
        expiry("authorities", &what, (row.not_after, NEAR_END.0), report, now);
    }
}

async fn versions(store: &Store, report: &mut Report) {
    let own = env!("CARGO_PKG_VERSION");
    match store.agent_versions().await {
        Ok(all) => {
            let told: Vec<_> =
                all.iter().map(|of| format!("{} ({})", of.agent_version, of.hosts)).collect();
            let told = if told.is_empty() { "no active host".to_owned() } else { told.join(", ") };
            let other = all.iter().any(|of| of.agent_version != own);
            let state = if other { State::Warn } else { State::Ok };
            let says = format!("server {own}; agents {told}");
            report.add("versions", state, says, "bring servers up first, then the agents");
        }
        Err(error) => report.fail("versions", &error, "see the database's log"),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn ends_and_clocks_are_told_in_time() {
        let now = datetime!(2026-11-23 12:00 UTC);
        let mut report = Report::default();
        for days in [200, 100, -1] {
            let end = now + Duration::days(days);
            expiry("x", "it", (end, NEAR_END.0), &mut report, now);
        }
        for seconds in [0, -10, 90] {
            clocks(Duration::seconds(seconds), Duration::milliseconds(20), &mut report);
        }
        // A slow answer says nothing about the clocks.
        clocks(Duration::seconds(5), Duration::seconds(9), &mut report);
        let states: Vec<_> = report.0.iter().map(|check| check.state).collect();
        let (ok, warn, fail) = (State::Ok, State::Warn, State::Fail);
        assert_eq!(states, [ok, warn, fail, ok, warn, fail, ok]);
        assert!(report.0.iter().all(|check| check.advice.is_some() != (check.state == ok)));
    }
}
