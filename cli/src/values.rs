//! How values are written on the command line.

use jobplane_protocol::{Priority, Status};
use std::fmt;
use std::str::FromStr;

/// A limit, or `none` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<i32>);

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => write!(f, "{limit}"),
            None => f.write_str("none"),
        }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|limit| Self(Some(limit)))
                .map_err(|_| format!("{text:?} is neither a number nor none")),
        }
    }
}

/// Reads an id.
pub(crate) fn id<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is not an id such as 01a20c60-e778-7f28-9888-04efef158136"))
}

/// Reads a priority.
pub(crate) fn priority(text: &str) -> Result<Priority, String> {
    let number: i64 = text.parse().map_err(|_| "one of 0, 25, 50, 75, 100".to_owned())?;
    Priority::try_from(number)
}

/// Reads a state in any case.
pub(crate) fn status(text: &str) -> Result<Status, String> {
    text.to_ascii_uppercase().parse().map_err(|_: String| {
        "one of pending, scheduled, running, retrying, succeeded, failed, cancelled".to_owned()
    })
}

/// Reads a variable and its value.
pub(crate) fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn values_are_read_or_refused_with_what_is_accepted() {
        assert_eq!(id::<Uuid>("00000000-0000-0000-0000-000000000000"), Ok(Uuid::nil()));
        assert!(id::<Uuid>("resize").unwrap_err().contains("such as"));
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("A").is_err());
        assert_eq!(status("failed"), Ok(Status::Failed));
        assert!(status("done").unwrap_err().contains("succeeded"));
        assert!(priority("25").is_ok() && priority("26").is_err());
        assert_eq!("none".parse(), Ok(Limit(None)));
        assert_eq!("7".parse(), Ok(Limit(Some(7))));
    }
}
