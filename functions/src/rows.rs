//! What a statement answered, read back into the types of the contract.

use crate::Error;
use jobplane_protocol::{Json, Priority, Status};
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use uuid::Uuid;

/// The items of a page whose statement answers one row without an id when there are none, and no row at all when
/// the caller is not known.
pub(crate) fn items<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T, Error>) -> Result<Vec<T>, Error> {
    if rows.is_empty() {
        return Err(Error::unauthorized());
    }
    let mut items = Vec::with_capacity(rows.len());
    for row in rows {
        if row.try_get::<_, Option<Uuid>>(0)?.is_some() {
            items.push(read(row)?);
        }
    }
    Ok(items)
}

/// Reads a stored priority.
pub(crate) fn priority(value: i16) -> Result<Priority, Error> {
    Priority::try_from(i64::from(value)).map_err(Error::Stored)
}

/// Takes stored JSON as the text it is.
pub(crate) fn json(text: Option<String>) -> Result<Option<Json>, Error> {
    let raw = |text| serde_json::value::RawValue::from_string(text);
    text.map(raw).transpose().map_err(|error| Error::Stored(error.to_string()))
}

/// Reads stored JSON of a known shape.
pub(crate) fn stored<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|error| Error::Stored(error.to_string()))
}

/// Reads a stored status.
pub(crate) fn status(text: &str) -> Result<Status, Error> {
    text.parse().map_err(Error::Stored)
}
