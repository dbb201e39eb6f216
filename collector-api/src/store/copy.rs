//! PostgreSQL's binary COPY format, written by hand: no driver encodes it.
//!
//! Rows are encoded where requests are decoded, off the async threads, and only concatenated inside
//! the transaction. Format: <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format".

use std::net::IpAddr;

use shared_model::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

/// Signature, flags (no OIDs) and length of the header's extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A row with -1 columns.
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();
/// Largest piece handed to the driver at once, bytes.
const MAX_SEND_BYTES: usize = 1 << 20;
/// 2000-01-01 in microseconds since the Unix epoch: PostgreSQL's own epoch.
const POSTGRES_EPOCH_US: i128 = 946_684_800_000_000;

/// Rows of one table in the binary format, without header and trailer, so that they concatenate.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The encoded rows.
    pub bytes: Vec<u8>,
    /// How many.
    pub count: u32,
}

impl Rows {
    /// Begins a row. The caller then writes exactly `columns` values.
    pub(super) fn row(&mut self, columns: i16) -> &mut Self {
        self.count += 1;
        self.bytes.extend_from_slice(&columns.to_be_bytes());
        self
    }

    pub(super) fn bigint(&mut self, value: impl Into<Option<i64>>) -> &mut Self {
        match value.into() {
            Some(value) => self.value(&value.to_be_bytes()),
            None => self.null(),
        }
    }

    /// `u64` into `bigint`. Validation refused what does not fit
    /// ([`shared_model::limits::MAX_COUNTER`]).
    pub(super) fn counter(&mut self, value: Option<u64>) -> &mut Self {
        self.bigint(value.map(u64::cast_signed))
    }

    /// `u32` into `integer`. Validation refused what does not fit
    /// ([`shared_model::limits::MAX_COUNT`]).
    pub(super) fn count(&mut self, value: impl Into<Option<u32>>) -> &mut Self {
        match value.into() {
            Some(value) => self.value(&value.cast_signed().to_be_bytes()),
            None => self.null(),
        }
    }

    pub(super) fn double(&mut self, value: Option<f64>) -> &mut Self {
        match value {
            Some(value) => self.value(&value.to_be_bytes()),
            None => self.null(),
        }
    }

    pub(super) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.value(value.as_bytes())
    }

    pub(super) fn optional_uuid(&mut self, value: Option<Uuid>) -> &mut Self {
        match value {
            Some(value) => self.uuid(value),
            None => self.null(),
        }
    }

    pub(super) fn timestamp(&mut self, value: Timestamp) -> &mut Self {
        let unix_us = value.unix_timestamp_nanos() / 1000;
        // Years -9999 to 9999 in µs fit 64 bits a hundred times over.
        let us = i64::try_from(unix_us - POSTGRES_EPOCH_US).unwrap_or(i64::MAX);
        self.bigint(us)
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.value(value.as_bytes())
    }

    pub(super) fn optional_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    pub(super) fn boolean(&mut self, value: bool) -> &mut Self {
        self.value(&[u8::from(value)])
    }

    /// An address as `inet`: family (2 or 3), prefix length, not a `cidr`, length, bytes
    /// (`network_send` of PostgreSQL's `network.c`).
    pub(super) fn inet(&mut self, value: IpAddr) -> &mut Self {
        match value {
            IpAddr::V4(address) => {
                self.length(4 + 4);
                self.bytes.extend_from_slice(&[2, 32, 0, 4]);
                self.bytes.extend_from_slice(&address.octets());
            }
            IpAddr::V6(address) => {
                self.length(4 + 16);
                self.bytes.extend_from_slice(&[3, 128, 0, 16]);
                self.bytes.extend_from_slice(&address.octets());
            }
        }
        self
    }

    pub(super) fn jsonb(&mut self, value: Option<&[u8]>) -> &mut Self {
        let Some(json) = value else { return self.null() };
        self.length(json.len() + 1);
        self.bytes.push(1); // version of jsonb's binary form
        self.bytes.extend_from_slice(json);
        self
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.bytes.extend_from_slice(&(-1_i32).to_be_bytes());
        self
    }

    fn value(&mut self, value: &[u8]) -> &mut Self {
        self.length(value.len());
        self.bytes.extend_from_slice(value);
        self
    }

    fn length(&mut self, length: usize) {
        // Values are parts of a request body, which is capped far below 2 GiB.
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        self.bytes.extend_from_slice(&length.to_be_bytes());
    }
}

/// Runs `statement` (a `COPY … FROM STDIN (FORMAT binary)`) over all `parts`. Returns the rows stored.
pub(super) async fn copy_in(
    connection: &mut PgConnection,
    statement: &str,
    parts: impl Iterator<Item = &[u8]>,
) -> Result<u64, sqlx::Error> {
    let mut copy = connection.copy_in_raw(statement).await?;
    let mut buffer = Vec::with_capacity(64 << 10);
    buffer.extend_from_slice(HEADER);
    for part in parts {
        for piece in part.chunks(MAX_SEND_BYTES) {
            if buffer.len() + piece.len() > MAX_SEND_BYTES {
                copy.send(buffer.as_slice()).await?;
                buffer.clear();
            }
            buffer.extend_from_slice(piece);
        }
    }
    buffer.extend_from_slice(&TRAILER);
    copy.send(buffer.as_slice()).await?;
    copy.finish().await
}
