//! Frames of TLS records (RFC 8446 §5.1): type, version, length of two bytes, and what nobody here reads.

const HEADER_BYTES: usize = 5;
/// `ContentType` of application data, and of everything that is encrypted.
const APPLICATION_DATA: u8 = 23;
/// An encrypted alert: two bytes, the inner type, the tag of the cipher.
const ALERT_BYTES: usize = 2 + 1 + 16;

/// What a record is, as far as it can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Encrypted, and no alert.
    Data,
    /// The clear part of a handshake, or an alert.
    Other,
}

impl Kind {
    /// Of a whole record.
    pub(super) fn of(record: &[u8]) -> Self {
        let is_alert = record.len() == HEADER_BYTES + ALERT_BYTES;
        if record.first() == Some(&APPLICATION_DATA) && !is_alert {
            Self::Data
        } else {
            Self::Other
        }
    }
}

/// What was read of one direction and is not yet passed on.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) buffer: Vec<u8>,
}

impl Records {
    /// The next record that is there in full.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let header = self.buffer.get(..HEADER_BYTES)?;
        let length = HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
        (self.buffer.len() >= length).then(|| self.buffer.drain(..length).collect())
    }
}
