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

    /// `u64` into `integer`, as `procfleet_expand` reads it.
    pub(super) fn compact(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.value(&compact(value).to_be_bytes()),
            None => self.null(),
        }
    }

    /// `u64` into `smallint`, as `procfleet_expand` reads it; above 2³¹ it says that much.
    pub(super) fn small(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.value(&small(value).to_be_bytes()),
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

/// A number below 2⁶³ in four bytes: below 2³¹ itself, above with 26 significant bits.
pub fn compact(value: u64) -> i32 {
    i32::try_from(value).unwrap_or_else(|_| {
        let most = i64::MAX.cast_unsigned();
        i32::MIN | i32::try_from(rounded(value.min(most), 26, 31)).unwrap_or(i32::MAX)
    })
}

/// A number below 2³¹ in two bytes: below 2¹⁵ itself, above with 11 significant bits.
fn small(value: u64) -> i16 {
    i16::try_from(value).unwrap_or_else(|_| {
        let most = u64::from(i32::MAX.cast_unsigned());
        i16::MIN | i16::try_from(rounded(value.min(most), 11, 15)).unwrap_or(i16::MAX)
    })
}

/// `value`, at least 2^`bits`, as exponent and mantissa in `bits` bits: the nearest there is.
fn rounded(value: u64, mantissa_bits: u32, bits: u32) -> u64 {
    let shift = u64::BITS - value.leading_zeros() - mantissa_bits;
    let mantissa = (value >> shift) + (value >> (shift - 1) & 1);
    // A mantissa that grew by a bit carries into the exponent, as it should; of the highest it must not.
    let carry = mantissa >> mantissa_bits;
    let (mantissa, shift) = (mantissa >> carry, u64::from(shift) + carry);
    let exponent = shift - u64::from(bits + 1 - mantissa_bits);
    (exponent << mantissa_bits | mantissa).min((1 << bits) - 1)
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

    /// What the two `procfleet_expand` say; that they do is tested against the database.
    fn expand(stored: i32) -> i64 {
        let exact = i64::from(stored);
        if stored >= 0 { exact } else { (exact & 0x3ff_ffff) << ((stored >> 26 & 31) + 6) }
    }

    fn expand_small(stored: i16) -> i64 {
        let exact = i64::from(stored);
        if stored >= 0 { exact } else { (exact & 0x7ff) << ((stored >> 11 & 15) + 5) }
    }

    #[test]
    fn numbers_are_exact_while_they_fit_and_close_above() {
        for exact in [0, 1, 4095, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 38) - 4096, 1 << 62] {
            assert_eq!(expand(compact(exact)).cast_unsigned(), exact);
        }
        for exact in [0, 1, 32_767, 32_768, 65_536, 1 << 20, 1 << 30] {
            assert_eq!(expand_small(small(exact)).cast_unsigned(), exact);
        }
        for power in 1..63 {
            for more in [0, 1, 12_345, 987_654_321, (1 << power) - 1, (1 << power) - 2] {
                let value = (1_u64 << power).saturating_add(more).min((1 << 63) - (1 << 37));
                let error = expand(compact(value)).abs_diff(value.cast_signed());
                assert!(error <= value >> 26, "{value}: {}, off by {error}", compact(value));
                let value = value.min((1 << 31) - (1 << 20));
                let error = expand_small(small(value)).abs_diff(value.cast_signed());
                assert!(error <= value >> 11, "{value}: {}, off by {error}", small(value));
            }
        }
        assert!(expand(compact(u64::MAX)) > i64::MAX - (1 << 37));
        assert!(expand_small(small(u64::MAX)) > i64::from(i32::MAX) - (1 << 20));
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
