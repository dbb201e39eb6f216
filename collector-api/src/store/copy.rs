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

/// Bits of a compact counter's mantissa; its exponent has 6, its sign says that it has one.
const MANTISSA_BITS: u32 = 25;

/// Rows of one table in the binary format, without header and trailer, so that they concatenate.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The encoded rows, where the host's number belongs zero.
    pub bytes: Vec<u8>,
    /// How many.
    pub count: u32,
    /// Where in `bytes` the number of the host belongs: known only within the transaction.
    host_numbers: Vec<u32>,
}

impl Rows {
    /// Begins a row. The caller then writes exactly `columns` values.
    pub(super) fn row(&mut self, columns: i16) -> &mut Self {
        self.count += 1;
        self.bytes.extend_from_slice(&columns.to_be_bytes());
        self
    }

    /// The rows of a host, at the end of `buffer`.
    pub fn append_to(&self, buffer: &mut Vec<u8>, host_number: i32) {
        let begin = buffer.len();
        buffer.extend_from_slice(&self.bytes);
        for offset in &self.host_numbers {
            let at = begin + *offset as usize;
            buffer[at..at + 4].copy_from_slice(&host_number.to_be_bytes());
        }
    }

    /// Leaves room for the number of the host.
    pub(super) fn host_number(&mut self) -> &mut Self {
        // A request body is capped far below 4 GiB.
        self.host_numbers.push(u32::try_from(self.bytes.len() + 4).unwrap_or(u32::MAX));
        self.value(&[0; 4])
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

    /// `u64` into four bytes, as `procfleet_expand` reads them.
    pub(super) fn compact(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.value(&compact(value).to_be_bytes()),
            None => self.null(),
        }
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

/// A counter in four bytes: up to 2³¹ - 1 itself; a larger one as 2³¹ + exponent · 2²⁵ + mantissa,
/// rounded to the nearest mantissa · 2^exponent, off by less than one part in 2²⁵.
pub fn compact(value: u64) -> i32 {
    if let Ok(exact) = i32::try_from(value) {
        return exact;
    }
    let value = value.min(i64::MAX.cast_unsigned());
    let mut exponent = u64::BITS - value.leading_zeros() - MANTISSA_BITS;
    let mut mantissa = (value >> exponent) + (value >> (exponent - 1) & 1);
    if mantissa >> MANTISSA_BITS != 0 {
        mantissa >>= 1;
        exponent += 1;
    }
    if mantissa.leading_zeros() <= exponent {
        // Rounded up to 2⁶³, which no bigint holds.
        (exponent, mantissa) = (i64::BITS - 1 - MANTISSA_BITS, (1 << MANTISSA_BITS) - 1);
    }
    let mantissa = u32::try_from(mantissa).unwrap_or(u32::MAX);
    (1 << 31 | exponent << MANTISSA_BITS | mantissa).cast_signed()
}

/// Runs `statement` (a `COPY … FROM STDIN (FORMAT binary)`) over the rows of all `parts`, each with the number of
/// its host. Returns the rows stored.
pub(super) async fn copy_in(
    connection: &mut PgConnection,
    statement: &str,
    parts: impl Iterator<Item = (&Rows, i32)>,
) -> Result<u64, sqlx::Error> {
    let mut copy = connection.copy_in_raw(statement).await?;
    let mut buffer = Vec::with_capacity(64 << 10);
    buffer.extend_from_slice(HEADER);
    for (rows, host_number) in parts {
        if buffer.len() + rows.bytes.len() > MAX_SEND_BYTES {
            copy.send(buffer.as_slice()).await?;
            buffer.clear();
        }
        rows.append_to(&mut buffer, host_number);
        // A report larger than a piece.
        while buffer.len() > MAX_SEND_BYTES {
            copy.send(&buffer[..MAX_SEND_BYTES]).await?;
            buffer.drain(..MAX_SEND_BYTES);
        }
    }
    buffer.extend_from_slice(&TRAILER);
    copy.send(buffer.as_slice()).await?;
    copy.finish().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `procfleet_expand` says; that it does is tested against the database.
    fn expand(stored: i32) -> i64 {
        if stored >= 0 {
            return stored.into();
        }
        i64::from(stored & 0x1ff_ffff) << (stored >> 25 & 63)
    }

    #[test]
    fn counters_are_exact_below_two_gigabytes_and_close_above() {
        for exact in [0, 1, 4095, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 37) - 4096, 1 << 62] {
            assert_eq!(expand(compact(exact)).cast_unsigned(), exact);
        }
        for power in 31..63 {
            for value in [1, 12_345, 987_654_321, (1 << power) - 1].map(|more| (1 << power) + more)
            {
                let value = u64::min(value, i64::MAX.cast_unsigned());
                let (stored, error) =
                    (compact(value), expand(compact(value)).abs_diff(value.cast_signed()));
                assert!(stored < 0 && error <= value >> 25, "{value}: {stored}, off by {error}");
            }
        }
        assert!(expand(compact(u64::MAX)) > i64::MAX - (1 << 38));
    }

    #[test]
    fn the_number_of_the_host_is_written_where_it_belongs() {
        let mut rows = Rows::default();
        rows.row(2).host_number().boolean(true).row(2).host_number().boolean(false);
        let (mut buffer, mut expected) = (b"before".to_vec(), b"before".to_vec());
        rows.append_to(&mut buffer, 0x0102_0304);
        for is_true in [1, 0] {
            expected.extend([0, 2, 0, 0, 0, 4, 1, 2, 3, 4, 0, 0, 0, 1, is_true]);
        }
        assert_eq!(buffer, expected);
    }
}
