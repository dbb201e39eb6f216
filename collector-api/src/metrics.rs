//! Every metric of the server, named once, and the exporter behind `/metrics`.
//!
//! Names follow Prometheus: base units, `_total` for counters. No host, pid or command line is ever
//! a label.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Connections closed because a limit was reached; `place` names the limit.
pub const CONNECTIONS_SHED: &str = "procfleet_server_connections_shed_total";
/// Open connections; `door` is `agent` or `operator`.
pub const CONNECTIONS: &str = "procfleet_server_connections";
/// Connections that ended before a request; `door`, `reason`.
pub const CONNECTIONS_FAILED: &str = "procfleet_server_connections_failed_total";
/// Requests; `door`, `route` (the pattern), `status`.
pub const REQUESTS: &str = "procfleet_server_requests_total";
/// Time of a request; `door`, `route`.
pub const REQUEST_SECONDS: &str = "procfleet_server_request_duration_seconds";
/// Handlers that panicked; `door`.
pub const PANICS: &str = "procfleet_server_panics_total";
/// Enrolments; `outcome` is `enrolled`, `repeated` or a problem code.
pub const ENROLLMENTS: &str = "procfleet_server_enrollments_total";
/// Certificates that replaced another; `way` is `renewal` or `recovery`.
pub const CERTIFICATES_ISSUED: &str = "procfleet_server_certificates_issued_total";
/// Requests of agents refused for their certificate; `code`.
pub const AGENTS_REFUSED: &str = "procfleet_server_agents_refused_total";

/// Requests on the agent door with a certificate in a header, which means nothing there.
pub const FORWARDED_IGNORED: &str = "procfleet_server_forwarded_certificates_ignored_total";
/// Requests on the proxied door refused for what the proxy sent; `reason`.
pub const FORWARDED_REFUSED: &str = "procfleet_server_forwarded_certificates_refused_total";
/// Signs of life not kept because too many waited for the database.
pub const CONTACTS_SHED: &str = "procfleet_server_contacts_shed_total";

/// Downloads of artifacts; `outcome` is `complete`, `broken_off`, `unreadable` or `refused`.
pub const ARTIFACT_DOWNLOADS: &str = "procfleet_server_artifact_downloads_total";

/// Requests for reports refused, and bodies of rejects dropped, to stay within limits; `place` names
/// the limit.
pub const INGEST_SHED: &str = "procfleet_ingest_shed_total";
/// Requests answered with a pause before the next one.
pub const INGEST_PACED: &str = "procfleet_ingest_paced_total";
/// Requests that wait for a writer, at the last group.
pub const INGEST_QUEUE_DEPTH: &str = "procfleet_ingest_queue_depth";
/// Time to store a group of requests.
pub const INGEST_GROUP_SECONDS: &str = "procfleet_ingest_group_duration_seconds";
/// Transactions that failed; `failure` says what was done about it.
pub const INGEST_GROUP_FAILURES: &str = "procfleet_ingest_group_failures_total";
/// Transactions committed.
pub const INGEST_GROUPS: &str = "procfleet_ingest_groups_total";
/// Requests in committed transactions: with [`INGEST_GROUPS`], the size of a group.
pub const INGEST_GROUP_REQUESTS: &str = "procfleet_ingest_group_requests_total";
/// Reports decided; `outcome`.
pub const INGEST_REPORTS: &str = "procfleet_ingest_reports_total";
/// Hosts whose identity two machines showed at once.
pub const CLONES_DETECTED: &str = "procfleet_ingest_clones_detected_total";
/// Rows stored; `table`.
pub const INGEST_ROWS: &str = "procfleet_ingest_rows_total";
/// Dictionary entries whose key had other content already; `table`.
pub const INGEST_COLLISIONS: &str = "procfleet_ingest_dictionary_collisions_total";
/// Maintenance rounds that failed.
pub const MAINTENANCE_FAILURES: &str = "procfleet_maintenance_failures_total";
/// 1 while this replica holds the maintenance lease.
pub const MAINTENANCE_LEADER: &str = "procfleet_maintenance_leader";
/// How far retention stays behind a database clock that jumped ahead: data that is not dropped yet.
pub const MAINTENANCE_CLOCK_LAG: &str = "procfleet_maintenance_clock_lag_seconds";
/// Passes that did not believe the database's clock.
pub const MAINTENANCE_CLOCK_HELD: &str = "procfleet_maintenance_clock_held_total";
/// Partitions made, dropped and compressed; `change`, `table`.
pub const MAINTENANCE_PARTITIONS: &str = "procfleet_maintenance_partitions_total";
/// Buckets rolled up, again included; `width`.
pub const MAINTENANCE_BUCKETS: &str = "procfleet_maintenance_rolled_up_buckets_total";
/// How far the roll-ups of 5 minutes are behind the database's clock.
pub const MAINTENANCE_ROLLUP_LAG: &str = "procfleet_maintenance_rollup_lag_seconds";
/// Marks of buckets that wait to be rolled up.
pub const MAINTENANCE_MARKS: &str = "procfleet_maintenance_rollup_marks";
/// Size on disk with indexes, at the worker's last look; `table`.
pub const MAINTENANCE_TABLE_BYTES: &str = "procfleet_maintenance_table_bytes";
/// Partitions, at the worker's last look; `table`.
pub const MAINTENANCE_TABLE_PARTITIONS: &str = "procfleet_maintenance_table_partitions";

/// Alerts opened by this replica.
pub const ALERTS_OPENED: &str = "procfleet_alerts_opened_total";
/// Alerts ended by this replica.
pub const ALERTS_RESOLVED: &str = "procfleet_alerts_resolved_total";
/// Time of a sweep for silent hosts.
pub const SWEEP_SECONDS: &str = "procfleet_alerts_sweep_duration_seconds";
/// Sweeps that failed.
pub const SWEEP_FAILURES: &str = "procfleet_alerts_sweep_failures_total";
/// Time of a round of rules over samples.
pub const RULE_SECONDS: &str = "procfleet_alerts_rules_duration_seconds";
/// Rounds of rules that failed.
pub const RULE_FAILURES: &str = "procfleet_alerts_rules_failures_total";
/// Alerts not opened, because their rule has too many.
pub const RULE_SHED: &str = "procfleet_alerts_rules_shed_total";
/// Pings of the dead man's switch; `outcome`.
pub const ROLLOUT_HOSTS: &str = "procfleet_rollouts_hosts_total";
/// See [`describe`].
pub const ROLLOUT_FAILURES: &str = "procfleet_rollouts_failures_total";
/// See [`describe`].
pub const PINGS: &str = "procfleet_alerts_pings_total";
/// Attempts to send; `kind` of the channel, `verdict`.
pub const NOTIFICATION_ATTEMPTS: &str = "procfleet_notifications_attempts_total";
/// Times that the outbox could not be read or marked.
pub const NOTIFICATION_FAILURES: &str = "procfleet_notifications_failures_total";
/// Alerts that a receiver was not told of, because there are too many; `place`.
pub const NOTIFICATIONS_SHED: &str = "procfleet_notifications_shed_total";
/// What hosts said of endpoints and is not kept; `reason`: `unknown` (none of ours) or `full`.
pub const WITNESSES_SHED: &str = "procfleet_server_endpoint_witnesses_shed_total";

/// Buckets of every `_seconds` histogram.
const SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Installs the process-wide recorder. The handle renders `/metrics`; its upkeep must be run now
/// and then. A second call in one process (tests) gets a recorder that nobody feeds.
pub fn install() -> PrometheusHandle {
    let builder = PrometheusBuilder::new();
    #[expect(clippy::expect_used, reason = "it refuses empty lists only")]
    let recorder = builder.set_buckets(&SECONDS).expect("not empty").build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("metrics are installed already");
    }
    describe();
    handle
}

fn describe() {
    describe_counter!(CONNECTIONS_SHED, "Connections closed because a limit was reached");
    describe_gauge!(CONNECTIONS, "Open connections");
    describe_counter!(CONNECTIONS_FAILED, "Connections that ended before a request");
    describe_counter!(REQUESTS, "Requests answered");
    describe_histogram!(REQUEST_SECONDS, Unit::Seconds, "Time to answer a request");
    describe_counter!(PANICS, "Handlers that panicked");
    describe_counter!(ENROLLMENTS, "Requests to enrol");
    describe_counter!(CERTIFICATES_ISSUED, "Certificates that replaced another");
    describe_counter!(AGENTS_REFUSED, "Requests of agents refused for their certificate");
    describe_counter!(CONTACTS_SHED, "Signs of life of hosts not kept");
    describe_counter!(
        FORWARDED_IGNORED,
        "Requests with a certificate in a header on the agent door"
    );
    describe_counter!(ARTIFACT_DOWNLOADS, "Downloads of artifacts");
    describe_counter!(FORWARDED_REFUSED, "Requests refused for what the proxy forwarded");
    describe_counter!(
        INGEST_SHED,
        "Requests refused, or bodies of rejects dropped, to stay within a limit"
    );
    describe_counter!(INGEST_PACED, "Requests answered with a pause before the next one");
    describe_gauge!(INGEST_QUEUE_DEPTH, "Requests that wait for a writer");
    describe_histogram!(INGEST_GROUP_SECONDS, Unit::Seconds, "Time to store a group of requests");
    describe_counter!(INGEST_GROUP_FAILURES, "Transactions that failed");
    describe_counter!(INGEST_GROUPS, "Transactions committed");
    describe_counter!(INGEST_GROUP_REQUESTS, "Requests in committed transactions");
    describe_counter!(INGEST_REPORTS, "Reports decided");
    describe_counter!(CLONES_DETECTED, "Hosts whose identity two machines showed at once");
    describe_counter!(INGEST_ROWS, "Rows stored");
    describe_counter!(INGEST_COLLISIONS, "Dictionary entries whose key had other content");
    describe_counter!(MAINTENANCE_FAILURES, "Maintenance rounds that failed");
    describe_gauge!(MAINTENANCE_LEADER, "Whether this replica holds the maintenance lease");
    describe_gauge!(
        MAINTENANCE_CLOCK_LAG,
        Unit::Seconds,
        "How far retention stays behind the database's clock"
    );
    describe_counter!(MAINTENANCE_CLOCK_HELD, "Passes that did not believe the database's clock");
    describe_counter!(MAINTENANCE_PARTITIONS, "Partitions made and dropped");
    describe_counter!(MAINTENANCE_BUCKETS, "Buckets rolled up");
    describe_gauge!(MAINTENANCE_ROLLUP_LAG, Unit::Seconds, "How far roll-ups are behind");
    describe_gauge!(MAINTENANCE_MARKS, "Marks of buckets that wait to be rolled up");
    describe_gauge!(MAINTENANCE_TABLE_BYTES, Unit::Bytes, "Size of a series with its indexes");
    describe_gauge!(MAINTENANCE_TABLE_PARTITIONS, "Partitions of a series");
    describe_counter!(ALERTS_OPENED, "Alerts opened");
    describe_counter!(ALERTS_RESOLVED, "Alerts ended");
    describe_histogram!(SWEEP_SECONDS, Unit::Seconds, "Time to look for silent hosts");
    describe_counter!(SWEEP_FAILURES, "Sweeps for silent hosts that failed");
    describe_histogram!(RULE_SECONDS, Unit::Seconds, "Time to judge what some hosts reported");
    describe_counter!(RULE_FAILURES, "Rounds of rules that failed");
    describe_counter!(RULE_SHED, "Alerts not opened, because their rule has too many");
    describe_counter!(ROLLOUT_HOSTS, "Hosts that rollouts started, and what became of them");
    describe_counter!(ROLLOUT_FAILURES, "Rounds of the rollouts that failed");
    describe_counter!(PINGS, "Pings of the dead man's switch");
    describe_counter!(NOTIFICATION_ATTEMPTS, "Messages that were tried to be sent");
    describe_counter!(WITNESSES_SHED, "What hosts said of endpoints and is not kept");
    describe_counter!(NOTIFICATIONS_SHED, "Alerts not told, because there are too many");
    describe_counter!(NOTIFICATION_FAILURES, "Times the outbox could not be read or marked");
}
