//! Every limit of the protocol, named once. Both sides enforce them: the agent never makes what the
//! server would refuse.

use std::time::Duration;

/// Largest compressed request body of `POST /v1/reports`, bytes. Beyond: 413 `body_too_large`.
pub const MAX_BODY_BYTES: usize = 4 << 20;
/// Largest request body after decompression, bytes. Beyond: 413 `inflated_too_large`.
pub const MAX_INFLATED_BYTES: usize = 32 << 20;
/// Most records in one request. Beyond: 413 `too_many_records`.
pub const MAX_RECORDS_PER_REQUEST: usize = 512;
/// Deepest nesting of objects and arrays in a request body. Beyond: 400 `too_deep`.
pub const MAX_JSON_DEPTH: usize = 16;
/// Largest body of `POST /v1/enroll`, bytes.
pub const MAX_ENROLL_BODY_BYTES: usize = 32 << 10;

/// Longest command line kept, bytes of UTF-8; longer ones are cut on a character boundary.
pub const MAX_COMMAND_LINE_BYTES: usize = 4096;
/// Longest of every other text (names, paths, cgroups, mount points), bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 1024;

/// Most ports of one instance.
pub const MAX_SERVICE_PORTS: usize = 64;

/// Most rows of `processes[]` in one report.
pub const MAX_PROCESSES: usize = 65_536;
/// Most rows of `connections[]` in one report.
pub const MAX_CONNECTIONS: usize = 65_536;
/// Most rows of `exits[]`, and of `exit_folds[]`, in one report.
pub const MAX_EXITS: usize = 65_536;
/// Most entries of each dictionary in one report.
pub const MAX_DICTIONARY: usize = 65_536;
/// Most mounts, block devices or network interfaces in one report, each.
pub const MAX_DEVICES: usize = 4096;
/// Most collectors, and most named losses, in one report.
pub const MAX_COLLECTORS: usize = 64;

/// Shortest sampling interval, milliseconds.
pub const MIN_INTERVAL_MS: u32 = 100;
/// Longest sampling interval, milliseconds (a day).
pub const MAX_INTERVAL_MS: u32 = 86_400_000;
/// Largest counter delta or gauge: what a PostgreSQL `bigint` holds.
pub const MAX_COUNTER: u64 = i64::MAX as u64;
/// Largest 32-bit count: what a PostgreSQL `integer` holds.
pub const MAX_COUNT: u32 = i32::MAX as u32;

/// How far ahead of the server's clock `sampled_at` may be.
pub const MAX_FUTURE: Duration = Duration::from_mins(5);
